//! What a decoded token costs the host: allocations, pipelines, bytes read back.
//!
//! **What is counted.** Every call of the allocator (`alloc`, `alloc_zeroed`, `realloc`) on the thread that decodes, from the first
//! recorded dispatch of a token to its id being there. wgpu allocates for each command that it encodes; that is not ours to change, but
//! it is no reason to look away either: the stack of every single allocation is taken, and an allocation is wgpu's only if a function
//! of wgpu (or of what is below it) stands on the stack between the allocator and the first function of tersor. Everything else is
//! the engine's, the standard library's collections that it uses included. Drivers allocate past Rust's allocator and are not seen.
//! The callback that it is given for a readback it puts into a box itself, once a token; that counts as wgpu's.
//! (Stacks are told apart by their return addresses; of those that are alike one is kept and named, for naming takes long.)
//!
//! **Not counted**: what a chat needs beside tokens – text, and the record of probabilities that `continue_text` reads for its
//! listeners (96 bytes instead of 4).

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};

use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::model::{Context, Decoder};
use tersor_engine::ops::linear::Rows;
use tersor_engine::ops::sample::{Sampler, Sampling};
use tersor_engine::progress::Monitor;
use tersor_tests::decoder::{Form, load_as};
use tersor_tests::kernel::gpus;
use tersor_tests::models;

struct Watched;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    /// By return addresses: how often, and one of them.
    static STACKS: RefCell<BTreeMap<Vec<usize>, (usize, Backtrace)>> = const { RefCell::new(BTreeMap::new()) };
}

fn see() {
    // Taking a stack allocates, and so does keeping it: neither is seen.
    if WATCHING.try_with(|watching| watching.replace(false)).unwrap_or(false) {
        STACKS.with(|stacks| {
            let mut stacks = stacks.borrow_mut();
            stacks.entry(return_addresses()).or_insert_with(|| (0, Backtrace::force_capture())).0 += 1;
        });
        WATCHING.set(true);
    }
}

/// Of the Itanium C++ ABI, which Rust's own stacks come from.
mod unwind {
    use std::ffi::{c_int, c_void};

    unsafe extern "C-unwind" {
        pub fn _Unwind_Backtrace(see: extern "C" fn(*mut c_void, *mut c_void) -> c_int, data: *mut c_void) -> c_int;
        pub fn _Unwind_GetIP(frame: *mut c_void) -> usize;
    }
}

fn return_addresses() -> Vec<usize> {
    extern "C" fn push(frame: *mut c_void, all: *mut c_void) -> c_int {
        // SAFETY: `all` is the vector below, and `frame` what the unwinder gave.
        unsafe { (*all.cast::<Vec<usize>>()).push(unwind::_Unwind_GetIP(frame)) };
        0
    }
    let mut all = Vec::<usize>::with_capacity(64);
    // SAFETY: the callback pushes to a vector that outlives the call.
    unsafe { unwind::_Unwind_Backtrace(push, std::ptr::from_mut(&mut all).cast()) };
    all
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        see();
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        see();
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        see();
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

/// The stacks of all allocations that this thread makes meanwhile, and how often each.
fn allocations<T>(of: impl FnOnce() -> T) -> (T, Vec<(usize, Backtrace)>) {
    STACKS.with(|stacks| stacks.borrow_mut().clear());
    WATCHING.set(true);
    let result = of();
    WATCHING.set(false);
    (result, STACKS.with(|stacks| std::mem::take(&mut *stacks.borrow_mut())).into_values().collect())
}

/// A function on a stack, and the file that it is in, where the system knows. Of what was inlined the name has no path.
#[derive(Debug)]
struct Frame {
    name: String,
    file: String,
}

/// The functions on a stack, innermost first.
fn frames(stack: &Backtrace) -> Vec<Frame> {
    let mut all = Vec::<Frame>::new();
    for line in stack.to_string().lines().map(str::trim_start) {
        match (line.split_once(": "), line.strip_prefix("at ")) {
            (Some((number, name)), _) if number.bytes().all(|b| b.is_ascii_digit()) => {
                all.push(Frame { name: name.to_owned(), file: String::new() });
            }
            (_, Some(file)) => all.last_mut().into_iter().for_each(|frame| frame.file = file.to_owned()),
            _ => {}
        }
    }
    all
}

/// Whether wgpu made this allocation: one of its functions comes before tersor's first, from the allocator outwards.
fn is_wgpus(frames: &[Frame]) -> bool {
    let allocator = |frame: &Frame| ["__rust_alloc", "__rust_realloc"].iter().any(|name| frame.name.contains(name));
    let after = frames.iter().position(allocator).map_or(0, |at| at + 1);
    let of = |frame: &Frame, start: &str| {
        // Of a method of a trait, the type's crate.
        frame.name.trim_start_matches(['<', '&', '*']).starts_with(start)
    };
    let tersor = |frame: &Frame| {
        let here = ["engine/src/", "tests/host_cost.rs"].iter().any(|part| frame.file.contains(part));
        of(frame, "tersor") || here && !frame.file.contains("/wgpu")
    };
    let wgpu = |frame: &Frame| of(frame, "wgpu") || frame.file.contains("/wgpu-");
    frames[after..].iter().find(|frame| tersor(frame) || wgpu(frame)).is_some_and(wgpu)
}

/// Keeps wgpu, which in debug builds takes stacks of its own where `RUST_BACKTRACE` is set, from doing so: it would wait for itself
/// when [`see`] takes one of an allocation that it makes meanwhile. The first thing that every test here does.
fn no_other_stacks() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: no test has started anything that reads the environment, for each of them waits here first.
    ONCE.call_once(|| unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") });
}

/// A decoder in its steady state.
struct Steady {
    decoder: Decoder,
    context: Context,
    sampler: Sampler,
    logits: tersor_engine::gpu::Buffer,
}

impl Steady {
    fn new(gpu: &Gpu, model: &str, form: Form, prompt: u32, room: u32) -> Self {
        let decoder = load_as(gpu, &models::open(model), form, prompt + room);
        let mut context = Context::new(&decoder, prompt + room).unwrap();
        let vocab = decoder.config().vocab;
        let sampler = Sampler::new(gpu, 1, 1).unwrap();
        let logits = gpu.storage("logits", 4 * u64::from(vocab), Purpose::Activations).unwrap();
        let prompt: Vec<u32> = (0..prompt).map(|i| (i * 977 + 13) % vocab).collect();
        let (mut rec, row) = pollster::block_on(decoder.prefill(&mut context, &prompt, &Monitor::none())).unwrap();
        decoder.logits(&mut rec, &context, row, 1, Rows::new(&logits, vocab)).unwrap();
        sampler.sample(&mut rec, &Sampling::default(), &logits, [0, vocab], 0, context.len(), 0).unwrap();
        rec.submit().unwrap();
        Self { decoder, context, sampler, logits }
    }

    /// Decodes a token: records it, submits it, has its id.
    fn token(&mut self) -> u32 {
        let (decoder, vocab) = (&self.decoder, self.decoder.config().vocab);
        let mut rec = decoder.gpu().record();
        decoder.forward(&mut rec, &mut self.context, self.sampler.records(), 0, 1, None).unwrap();
        decoder.logits(&mut rec, &self.context, 0, 1, Rows::new(&self.logits, vocab)).unwrap();
        let at = self.context.len();
        self.sampler.sample(&mut rec, &Sampling::default(), &self.logits, [0, vocab], 0, at, 0).unwrap();
        pollster::block_on(self.sampler.submit_token(rec, 0)).unwrap()
    }
}

/// Tokens before the state counts as steady, and tokens that are watched.
const WARM: u32 = 3;
const WATCHED: u32 = 2;

/// Holds a model to what the head of this file says, at a context that takes one workgroup a head and at one that is split.
fn check(model: &str, form: Form) {
    no_other_stacks();
    for gpu in gpus() {
        for prompt in [8, 200] {
            let what = format!("{model} {form:?} behind {prompt} tokens on {} {}", gpu.name(), gpu.tier());
            let mut steady = Steady::new(&gpu, model, form, prompt, WARM + WATCHED);
            for _ in 0..WARM {
                steady.token();
            }
            let (compiled, read) = (gpu.compiled(), gpu.bytes_read());
            let (ids, stacks) = allocations(|| [steady.token(), steady.token()]);
            assert_eq!(ids.len(), WATCHED as usize);
            assert_eq!(gpu.compiled(), compiled, "{what}: a pipeline was compiled");
            assert_eq!(gpu.bytes_read() - read, 4 * u64::from(WATCHED), "{what}: bytes read back");

            let mut ours = BTreeMap::<String, usize>::new();
            let mut wgpus = 0;
            for (count, stack) in &stacks {
                let frames = frames(stack);
                if is_wgpus(&frames) {
                    wgpus += count;
                } else {
                    *ours.entry(format!("{frames:#?}")).or_default() += count;
                }
            }
            println!(
                "{what}: {wgpus} allocations of wgpu in {WATCHED} tokens, {} of the engine",
                ours.values().sum::<usize>()
            );
            assert!(wgpus > 0, "{what}: wgpu's own allocations are not seen, so neither would the engine's be");
            assert!(ours.is_empty(), "{what}: the engine allocates:\n{ours:#?}");
        }
    }
}

#[test]
fn a_token_of_the_tiny_model_allocates_compiles_and_reads_nothing_of_its_own() {
    check("tiny", Form::default());
}

#[test]
fn the_same_with_other_codecs() {
    // One with options, one with a second dispatch that takes a buffer of the pool.
    for recipe in ["uniform:bits=3,group=32", "q8_0+svd:rank=16"] {
        check("tiny", Form { recipe: Some(recipe), ..Form::default() });
    }
}

#[test]
fn an_allocation_of_ours_is_found_and_named() {
    no_other_stacks();
    let (_, stacks) = allocations(|| std::hint::black_box(vec![1u8; 100]));
    assert_eq!(stacks.len(), 1);
    let found = frames(&stacks[0].1);
    assert!(!is_wgpus(&found), "{found:#?}");
    assert!(found.iter().any(|frame| frame.name.contains("an_allocation_of_ours_is_found")), "{found:#?}");
    let stack = |frames: &[(&str, &str)]| -> Vec<Frame> {
        frames.iter().map(|(name, file)| Frame { name: (*name).into(), file: (*file).into() }).collect()
    };
    let ours = ("tersor_engine::gpu::g", "/home/engine/src/gpu/mod.rs:1:1");
    let theirs = ("<wgpu_core::A as B>::f", "");
    assert!(is_wgpus(&stack(&[("__rust_alloc", ""), ("alloc::vec::Vec<T>::push", ""), theirs, ours])));
    assert!(is_wgpus(&stack(&[("__rust_alloc", ""), ("map_async", "/r/wgpu-30.0.1/src/api/buffer.rs:2:2"), ours])));
    assert!(!is_wgpus(&stack(&[("__rust_realloc", ""), ("alloc::vec::Vec<wgpu::A>::push", ""), ours, theirs])));
    assert!(!is_wgpus(&stack(&[("__rust_alloc", ""), ("{closure#0}", "./engine/src/gpu/mod.rs:3:3"), theirs, ours])));
    assert!(!is_wgpus(&stack(&[("__rust_alloc", ""), ("nobody::knows", "")])));
}
