//! Composes every kernel in every permutation that may be asked for, validates each with naga, and writes down what the
//! host needs to know of it (bindings, workgroup size, workgroup memory). Any error fails the build.
//!
//! Identical texts are validated once; texts validated by an earlier build are remembered in OUT_DIR.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process, thread};

#[path = "src/compose.rs"]
#[allow(dead_code)] // the library uses the rest of it
mod compose;
#[path = "src/key.rs"]
mod key;

use compose::{Composition, Options, Sources};

/// More permutations than this of one kernel is a design error: use an `override` instead of an option.
const MAX_PERMUTATIONS: usize = 4000;
/// WebGPU's default limits: every permutation must live inside them.
const MAX_WORKGROUP_BYTES: u32 = 16384;
const MAX_INVOCATIONS: u32 = 256;
const MAX_STORAGE_BUFFERS: usize = 8;

struct Files(BTreeMap<String, (PathBuf, String)>);

impl Sources for Files {
    fn text(&self, module: &str) -> Option<&str> {
        self.0.get(module).map(|f| f.1.as_str())
    }
    fn codecs(&self) -> Vec<String> {
        self.0.keys().filter_map(|m| m.strip_prefix("codec/")).map(str::to_owned).collect()
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, (PathBuf, String)>) {
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut entries: Vec<_> = fs::read_dir(folder).expect("wgsl folder is readable").flatten().collect();
    entries.sort_by_key(|e| e.path());
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|e| e == "wgsl") {
            let module = path.strip_prefix(root).expect("below root").with_extension("");
            let module = module.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
            let text = fs::read_to_string(&path).unwrap_or_else(|e| fail(&format!("{}: {e}", path.display())));
            files.insert(module, (path, text));
        }
    }
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    process::exit(1);
}

/// Validates a composition and describes it as one line: the Rust literal of its `KernelInfo`.
fn reflect(composition: &Composition) -> Result<String, String> {
    let origin = |line: u32| {
        composition
            .origins
            .get((line as usize).saturating_sub(1))
            .map_or("?".to_owned(), |(m, l)| format!("{m}.wgsl:{l}"))
    };
    let source = &composition.source;
    let module = naga::front::wgsl::parse_str(source).map_err(|e| {
        let place = e.location(source).map_or("?".into(), |l| origin(l.line_number));
        format!("{place}: {}", e.emit_to_string(source))
    })?;
    // pack2x16float and unpack2x16float: part of every WebGPU device.
    let mut capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(naga::valid::Capabilities::SHADER_FLOAT16, composition.f16);
    capabilities.set(naga::valid::Capabilities::SUBGROUP, composition.subgroup);
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities);
    if composition.subgroup {
        validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
        validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
    }
    validator.validate(&module).map_err(|e| {
        let place = e.location(source).map_or("?".into(), |l| origin(l.line_number));
        format!("{place}: {}", e.emit_to_string(source))
    })?;

    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| e.to_string())?;
    let entry = match module.entry_points.as_slice() {
        [entry] if entry.name == "main" => entry,
        _ => return Err("a kernel has exactly one entry point, main".into()),
    };
    let size = entry.workgroup_size;
    let mut workgroup_bytes = 0;
    let mut storage = 0;
    let mut bindings = Vec::new();
    for (_, var) in module.global_variables.iter() {
        let name = var.name.clone().unwrap_or_default();
        let bytes = layouter[var.ty].size;
        let kind = match var.space {
            naga::AddressSpace::WorkGroup => {
                workgroup_bytes += bytes;
                continue;
            }
            naga::AddressSpace::Uniform => "Uniform",
            naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => "WriteStorage",
            naga::AddressSpace::Storage { .. } => "ReadStorage",
            _ => continue,
        };
        let place = var.binding.as_ref().ok_or_else(|| format!("{name} has no binding"))?;
        let expected = u32::from(kind == "Uniform");
        if place.group != expected || (kind == "Uniform" && place.binding != 0) {
            return Err(format!("{name}: storage belongs in @group(0), the uniform at @group(1) @binding(0)"));
        }
        storage += usize::from(kind != "Uniform");
        bindings.push((place.group, place.binding, name, kind, bytes));
    }
    bindings.sort();
    let invocations = size.iter().product::<u32>();
    if workgroup_bytes > MAX_WORKGROUP_BYTES || invocations > MAX_INVOCATIONS || storage > MAX_STORAGE_BUFFERS {
        return Err(format!(
            "{workgroup_bytes} B workgroup memory, {invocations} invocations, {storage} storage buffers: \
             past WebGPU's defaults ({MAX_WORKGROUP_BYTES}, {MAX_INVOCATIONS}, {MAX_STORAGE_BUFFERS})"
        ));
    }
    let mut overrides: Vec<_> = module.overrides.iter().filter_map(|(_, o)| o.name.clone()).collect();
    overrides.sort();
    let mut line = format!(
        "KernelInfo {{ workgroup_size: {size:?}, workgroup_bytes: {workgroup_bytes}, f16: {}, subgroup: {}, overrides: &{overrides:?}, bindings: &[",
        composition.f16, composition.subgroup
    );
    for (group, binding, name, kind, bytes) in bindings {
        let _ = write!(
            line,
            "Binding {{ name: {name:?}, group: {group}, binding: {binding}, kind: BindingKind::{kind}, size: {bytes} }}, "
        );
    }
    line.push_str("] }");
    Ok(line)
}

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("wgsl");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/compose.rs");
    println!("cargo:rerun-if-changed=src/key.rs");
    let mut files = BTreeMap::new();
    collect(&root, &root, &mut files);
    let files = Files(files);

    // 1. Compose all; keep the distinct texts.
    let mut entries: Vec<(u64, usize)> = Vec::new();
    let mut texts: Vec<(String, Composition)> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut kernels = Vec::new();
    for (module, (_, text)) in &files.0 {
        if !text.contains("@compute") {
            continue;
        }
        let all = compose::permutations(&files, module).unwrap_or_else(|e| fail(&e.to_string()));
        if all.is_empty() || all.len() > MAX_PERMUTATIONS {
            fail(&format!("{module}.wgsl: {} permutations (1 to {MAX_PERMUTATIONS} allowed)", all.len()));
        }
        kernels.push((module.clone(), all.len()));
        for options in all {
            let composition = compose::compose(&files, module, &options).unwrap_or_else(|e| fail(&e.to_string()));
            let at = *index.entry(composition.source.clone()).or_insert_with(|| {
                texts.push((describe(module, &options), composition));
                texts.len() - 1
            });
            entries.push((key::key(module, &options), at));
        }
    }

    // 2. Validate and reflect each text, on all cores, remembering what earlier builds found.
    let memory = out.join("validated.txt");
    let known: HashMap<u64, String> = fs::read_to_string(&memory)
        .unwrap_or_default()
        .lines()
        .filter_map(|l| l.split_once(' ').and_then(|(h, i)| Some((u64::from_str_radix(h, 16).ok()?, i.to_owned()))))
        .collect();
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<String, String>>>> = Mutex::new(vec![None; texts.len()]);
    let hash =
        |c: &Composition| key::hash(&format!("{}\0{}\0{}\0{}", include_str!("build.rs"), c.f16, c.subgroup, c.source));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some((_, composition)) = texts.get(i) else { break };
                    let result = match known.get(&hash(composition)) {
                        Some(info) => Ok(info.clone()),
                        None => reflect(composition),
                    };
                    results.lock().expect("no thread panics")[i] = Some(result);
                }
            });
        }
    });
    let mut infos = Vec::new();
    let mut remembered = String::new();
    let mut errors = 0;
    for (result, (name, composition)) in results.into_inner().expect("no thread panics").into_iter().zip(&texts) {
        match result.expect("every text was visited") {
            Ok(info) => {
                let _ = writeln!(remembered, "{:016x} {info}", hash(composition));
                infos.push(info);
            }
            Err(error) => {
                errors += 1;
                if errors <= 5 {
                    eprintln!("{name}\n{error}\n");
                }
                infos.push(String::new());
            }
        }
    }
    if errors > 0 {
        fail(&format!("{errors} of {} shader texts are invalid", texts.len()));
    }
    fs::write(&memory, remembered).expect("OUT_DIR is writable");

    // 3. The tables of the library.
    let mut unique: Vec<String> = infos.clone();
    unique.sort();
    unique.dedup();
    entries.sort();
    for pair in entries.windows(2) {
        if pair[0].0 == pair[1].0 {
            fail("two permutations share a key: the hash collides");
        }
    }
    let mut code = String::from("pub static SOURCES: &[(&str, &str)] = &[\n");
    for (module, (path, _)) in &files.0 {
        let _ = writeln!(code, "    ({module:?}, include_str!({:?})),", path.display().to_string());
    }
    code.push_str("];\npub static INFOS: &[KernelInfo] = &[\n");
    for info in &unique {
        let _ = writeln!(code, "    {info},");
    }
    code.push_str("];\npub static PERMUTATIONS: &[(u64, u16)] = &[\n");
    for (key, at) in &entries {
        let info = unique.binary_search(&infos[*at]).expect("unique holds all infos");
        let _ = writeln!(code, "    ({key:#x}, {info}),");
    }
    code.push_str("];\npub static KERNELS: &[(&str, usize)] = &[\n");
    for (kernel, count) in &kernels {
        let _ = writeln!(code, "    ({kernel:?}, {count}),");
    }
    code.push_str("];\n");
    fs::write(out.join("kernels.rs"), code).expect("OUT_DIR is writable");
}

fn describe(module: &str, options: &Options) -> String {
    let list = options.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ");
    format!("{module}.wgsl [{list}]")
}
