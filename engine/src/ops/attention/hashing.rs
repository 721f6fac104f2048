//! Linear attention by hashes: EcoFormer (arXiv 2209.09004).
//!
//! In: one vector a token that serves as query and key, a value, and a learned [`Hash`]. Out: attention whose similarity of two tokens is
//! the agreement of their packed sign bits, at a cost linear in the tokens; sums over tokens are additions and subtractions only.

pub mod learn;

use super::HEAD_DIMS;
use crate::gpu::{Buffer, BufferSlice, Gpu, Purpose, Recorder};
use crate::ops::{OpsError, fold, holds};

/// Bits of a hash that there are kernels for; EcoFormer takes 16.
pub const BITS: [u32; 3] = [8, 16, 32];
/// Tokens that a workgroup adds up.
const CHUNK: u32 = 256;
/// Largest number of tokens whose agreement is counted in 32 bits.
const MOST_TOKENS: u32 = 1 << 24;

/// A kernelised hash for every head: bit b of x is the sign of Σ_j A_bj·(exp(−‖x̂ − a_j‖²/2σ) − μ_j).
#[derive(Clone, Debug, PartialEq)]
pub struct Hash {
    /// Heads.
    pub heads: u32,
    /// Dimensions of a head.
    pub head_dim: u32,
    /// Bits of a code, one of [`BITS`].
    pub bits: u32,
    /// Anchors a_j: `[heads, m, head_dim]`.
    pub anchors: Vec<f32>,
    /// μ: `[heads, m]`.
    pub means: Vec<f32>,
    /// A: `[heads, bits, m]`.
    pub matrix: Vec<f32>,
}

impl Hash {
    /// Anchors of each head.
    pub fn anchors_each(&self) -> u32 {
        self.means.len() as u32 / self.heads.max(1)
    }

    fn check(&self) -> Result<(), OpsError> {
        let m = self.anchors_each() as usize;
        let heads = self.heads as usize;
        let fits = heads > 0
            && m > 0
            && BITS.contains(&self.bits)
            && HEAD_DIMS.contains(&self.head_dim)
            && self.means.len() == heads * m
            && self.anchors.len() == heads * m * self.head_dim as usize
            && self.matrix.len() == heads * m * self.bits as usize;
        if fits {
            return Ok(());
        }
        let what = format!(
            "a hash of {} bits for {heads} heads of {} dimensions with {} anchor values, {} means and a matrix of {}; there are \
             kernels for {BITS:?} bits",
            self.bits,
            self.head_dim,
            self.anchors.len(),
            self.means.len(),
            self.matrix.len()
        );
        Err(OpsError::shape("attention/hashing", what))
    }
}

/// A [`Hash`] on the device.
#[derive(Clone, Debug)]
pub struct Hasher {
    heads: u32,
    head_dim: u32,
    bits: u32,
    anchors_each: u32,
    anchors: Buffer,
    means: Buffer,
    /// `[heads, m, bits]`.
    matrix: Buffer,
    /// `[heads, head_dim + 4]`: Σ a_j, then Σ ‖a_j‖².
    anchor_sums: Buffer,
}

/// What [`Hasher::attend`] puts in the numerator besides the agreement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// β·Σ v_j: a weighted mean of the values.
    #[default]
    Mean,
    /// β·v_i, the token's own value: the released code's form, with which its published weights were trained.
    Released,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    tokens: u32,
    heads: u32,
    cols: u32,
    anchors: u32,
    chunks: u32,
    own: u32,
    pad: [u32; 2],
}

impl Hasher {
    /// Uploads a hash.
    ///
    /// # Errors
    /// [`OpsError::Shape`] if its parts do not fit each other, or the device has no room.
    pub fn upload(gpu: &Gpu, hash: &Hash) -> Result<Self, OpsError> {
        hash.check()?;
        let (m, dim, bits) = (hash.anchors_each() as usize, hash.head_dim as usize, hash.bits as usize);
        let mut anchor_sums = Vec::new();
        for anchors in hash.anchors.chunks_exact(m * dim) {
            let sum = |d: usize| anchors.iter().skip(d).step_by(dim).map(|x| f64::from(*x)).sum::<f64>() as f32;
            anchor_sums.extend((0..dim).map(sum));
            let energy: f64 = anchors.iter().map(|x| f64::from(*x).powi(2)).sum();
            anchor_sums.extend([energy as f32, 0.0, 0.0, 0.0]);
        }
        let mut matrix = Vec::with_capacity(hash.matrix.len());
        for head in hash.matrix.chunks_exact(bits * m) {
            for j in 0..m {
                matrix.extend((0..bits).map(|b| head[b * m + j]));
            }
        }
        let put = |label, data: &[f32]| gpu.upload(label, data, Purpose::Weights);
        Ok(Self {
            heads: hash.heads,
            head_dim: hash.head_dim,
            bits: hash.bits,
            anchors_each: m as u32,
            anchors: put("hash anchors", &hash.anchors)?,
            means: put("hash means", &hash.means)?,
            matrix: put("hash matrix", &matrix)?,
            anchor_sums: put("hash anchor sums", &anchor_sums)?,
        })
    }

    fn params(&self, tokens: u32, form: Form) -> Result<Params, OpsError> {
        if tokens == 0 || tokens > MOST_TOKENS {
            return Err(OpsError::shape(
                "attention/hashing",
                format!("{tokens} tokens; 1 to {MOST_TOKENS} can be attended"),
            ));
        }
        Ok(Params {
            tokens,
            heads: self.heads,
            cols: self.head_dim / 4,
            anchors: self.anchors_each,
            chunks: tokens.div_ceil(CHUNK),
            own: (form == Form::Released).into(),
            pad: [0; 2],
        })
    }

    fn values(&self, tokens: u32) -> u64 {
        u64::from(tokens) * u64::from(self.heads) * u64::from(self.head_dim)
    }

    /// Records the hash of every token into `codes`: `[heads, tokens]` words, bit b of the hash in bit b. `x`: `[tokens, heads, head_dim]`,
    /// of any length; the hash normalises. σ is measured on all tokens of the head.
    ///
    /// # Errors
    /// [`OpsError::Shape`], [`OpsError::BufferTooSmall`], or [`OpsError::Gpu`] from recording.
    pub fn hash(
        &self,
        rec: &mut Recorder,
        tokens: u32,
        x: impl Into<BufferSlice>,
        codes: impl Into<BufferSlice>,
    ) -> Result<(), OpsError> {
        const OP: &str = "attention/hash_codes";
        let (x, codes) = (x.into(), codes.into());
        let params = self.params(tokens, Form::Mean)?;
        holds(OP, "x", &x, self.values(tokens))?;
        holds(OP, "codes", &codes, u64::from(tokens) * u64::from(self.heads))?;
        let spread = rec.gpu().scratch("hash spread", 4 * u64::from(self.heads) * u64::from(params.chunks))?;
        let bits = ("BITS", self.bits.into());
        let subgroup = ("SUBGROUP", rec.gpu().tier().subgroup.into());
        let kernel = rec.gpu().kernel("attention/hash_spread", &[bits.clone(), subgroup])?;
        let bindings = [("x", x.clone()), ("anchor_sums", self.anchor_sums.all()), ("spread", spread.all())];
        rec.dispatch(&kernel, &bindings, &params, [params.chunks, self.heads, 1])?;
        let kernel = rec.gpu().kernel(OP, &[bits])?;
        let bindings = [
            ("x", x),
            ("anchors", self.anchors.all()),
            ("means", self.means.all()),
            ("matrix", self.matrix.all()),
            ("spread", spread.all()),
            ("codes", codes),
        ];
        Ok(rec.dispatch(&kernel, &bindings, &params, [tokens.div_ceil(64), self.heads, 1])?)
    }

    /// Records attention in linear time. `codes`: of [`Hasher::hash`]; `v` and `o`: `[tokens, heads, head_dim]`. Three dispatches.
    ///
    /// `additions`: two words, the low one first, to which the number of additions of floats is added.
    ///
    /// # Errors
    /// As [`Hasher::hash`].
    pub fn attend(
        &self,
        rec: &mut Recorder,
        tokens: u32,
        form: Form,
        codes: impl Into<BufferSlice>,
        v: impl Into<BufferSlice>,
        o: impl Into<BufferSlice>,
        additions: impl Into<BufferSlice>,
    ) -> Result<(), OpsError> {
        const OP: &str = "attention/hash_attend";
        let (codes, v, o, executed) = (codes.into(), v.into(), o.into(), additions.into());
        let params = self.params(tokens, form)?;
        self.check_values(OP, tokens, [&codes, &v, &o, &executed])?;
        let bits = [("BITS", self.bits.into())];
        let (heads, cols) = (u64::from(self.heads), u64::from(params.cols));
        let width = u64::from(self.bits + 1) * cols;
        let room = |rec: &Recorder, chunks: u32| -> Result<[Buffer; 2], OpsError> {
            let n = heads * u64::from(chunks);
            let sums = rec.gpu().scratch("hash sums", 16 * n * width)?;
            Ok([sums, rec.gpu().scratch("hash counts", 4 * n * u64::from(self.bits))?])
        };
        let mut joined = room(rec, params.chunks)?;
        let kernel = rec.gpu().kernel("attention/hash_sums", &bits)?;
        let bindings = [
            ("codes", codes.clone()),
            ("v", v.clone()),
            ("sums", joined[0].all()),
            ("counts", joined[1].all()),
            ("executed", executed.clone()),
        ];
        rec.dispatch(&kernel, &bindings, &params, [params.chunks, self.heads, 1])?;
        if params.chunks > 1 {
            let all = room(rec, 1)?;
            let kernel = rec.gpu().kernel("attention/hash_join", &bits)?;
            let bindings = [
                ("sums", joined[0].all()),
                ("counts", joined[1].all()),
                ("all_sums", all[0].all()),
                ("all_counts", all[1].all()),
            ];
            let lanes = heads * (width + u64::from(self.bits));
            rec.dispatch(&kernel, &bindings, &params, [lanes.div_ceil(64) as u32, 1, 1])?;
            joined = all;
        }
        let kernel = rec.gpu().kernel(OP, &bits)?;
        let bindings = [
            ("codes", codes),
            ("v", v),
            ("sums", joined[0].all()),
            ("counts", joined[1].all()),
            ("o", o),
            ("executed", executed),
        ];
        let grid = fold(OP, rec.gpu(), self.values(tokens) / 4, 64)?;
        Ok(rec.dispatch(&kernel, &bindings, &params, grid)?)
    }

    /// Records the same attention in its quadratic form, pair by pair with population counts; arguments as [`Hasher::attend`].
    ///
    /// # Errors
    /// As [`Hasher::hash`].
    pub fn attend_pairs(
        &self,
        rec: &mut Recorder,
        tokens: u32,
        form: Form,
        codes: impl Into<BufferSlice>,
        v: impl Into<BufferSlice>,
        o: impl Into<BufferSlice>,
        additions: impl Into<BufferSlice>,
    ) -> Result<(), OpsError> {
        const OP: &str = "attention/hash_pairs";
        let (codes, v, o, executed) = (codes.into(), v.into(), o.into(), additions.into());
        let params = self.params(tokens, form)?;
        self.check_values(OP, tokens, [&codes, &v, &o, &executed])?;
        let kernel = rec.gpu().kernel(OP, &[("BITS", self.bits.into())])?;
        let bindings = [("codes", codes), ("v", v), ("o", o), ("executed", executed)];
        let grid = fold(OP, rec.gpu(), self.values(tokens) / 4, 64)?;
        Ok(rec.dispatch(&kernel, &bindings, &params, grid)?)
    }

    fn check_values(
        &self,
        op: &'static str,
        tokens: u32,
        [codes, v, o, executed]: [&BufferSlice; 4],
    ) -> Result<(), OpsError> {
        holds(op, "codes", codes, u64::from(tokens) * u64::from(self.heads))?;
        holds(op, "v", v, self.values(tokens))?;
        holds(op, "o", o, self.values(tokens))?;
        holds(op, "executed", executed, 2)
    }
}
