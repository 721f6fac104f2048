//! The 64-bit rANS coder of learned codecs, with CompressAI's conventions: 16-bit frequencies, a state of at least 2³¹ that gives and takes
//! 32-bit words, escapes for symbols outside the table. (Duda, arXiv 1311.2540.)
//!
//! In and out: symbols with the cumulative frequencies of each, bytes. Kernels take another form of the same idea (`codec/entropy`): streams
//! as short as theirs could not afford a state of 63 bits.

/// Bits of a frequency.
const PRECISION: u32 = 16;
/// The least state.
const LEAST: u64 = 1 << 31;
/// Bits of a digit of an escaped value.
const DIGIT: u32 = 4;
const LAST_DIGIT: u32 = (1 << DIGIT) - 1;

/// A symbol's table: `cdf` runs from 0 to 2^16, its last symbol but one is the escape, and the first stands for `offset`.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    pub cdf: &'a [u32],
    pub offset: i32,
}

impl Model<'_> {
    /// The symbol that stands for whatever has none.
    fn escape(&self) -> u32 {
        self.cdf.len() as u32 - 2
    }
}

/// Cumulative frequencies of 16 bits for probabilities, none of them 0: `⌊2^16·c/Σc⌋` of the rounded ones, and what has nothing takes one from
/// the rarest that can spare it.
pub fn quantized_cdf(pmf: &[f32]) -> Vec<u32> {
    let counts: Vec<u64> = pmf.iter().map(|p| (p * (1 << PRECISION) as f32).round() as u64).collect();
    let total: u64 = counts.iter().sum();
    let mut cdf = vec![0u32];
    for count in counts {
        cdf.push(cdf[cdf.len() - 1] + ((count << PRECISION) / total) as u32);
    }
    cdf[pmf.len()] = 1 << PRECISION;
    for i in 0..pmf.len() {
        if cdf[i] != cdf[i + 1] {
            continue;
        }
        let frequency = |j: usize| cdf[j + 1] - cdf[j];
        let from = (0..pmf.len()).filter(|&j| frequency(j) > 1).min_by_key(|&j| (frequency(j), j));
        let from = from.expect("2^16 is more than there are symbols");
        if from < i {
            cdf[from + 1..=i].iter_mut().for_each(|c| *c -= 1);
        } else {
            cdf[i + 1..=from].iter_mut().for_each(|c| *c += 1);
        }
    }
    cdf
}

/// Start, frequency and their bits.
type Push = (u32, u32, u32);

fn pushes(value: i32, model: Model, pushes: &mut Vec<Push>) {
    let v = i64::from(value) - i64::from(model.offset);
    let escape = i64::from(model.escape());
    let (symbol, raw) = match v {
        v if v < 0 => (escape, Some((-2 * v - 1) as u64)),
        v if v >= escape => (escape, Some(2 * (v - escape) as u64)),
        v => (v, None),
    };
    let symbol = symbol as usize;
    pushes.push((model.cdf[symbol], model.cdf[symbol + 1] - model.cdf[symbol], PRECISION));
    let Some(raw) = raw else { return };
    let digits = (u64::BITS - raw.leading_zeros()).div_ceil(DIGIT);
    let mut left = digits;
    while left >= LAST_DIGIT {
        pushes.push((LAST_DIGIT, 1, DIGIT));
        left -= LAST_DIGIT;
    }
    pushes.push((left, 1, DIGIT));
    pushes.extend((0..digits).map(|i| ((raw >> (DIGIT * i)) as u32 & LAST_DIGIT, 1, DIGIT)));
}

/// The stream of these values.
pub fn encode<'a>(values: impl IntoIterator<Item = (i32, Model<'a>)>) -> Vec<u8> {
    let mut all = Vec::new();
    values.into_iter().for_each(|(value, model)| pushes(value, model, &mut all));
    let (mut x, mut words) = (LEAST, Vec::new());
    for (start, frequency, bits) in all.into_iter().rev() {
        let frequency = u64::from(frequency);
        if x >= ((LEAST >> bits) << 32) * frequency {
            words.push(x as u32);
            x >>= 32;
        }
        x = ((x / frequency) << bits) + x % frequency + u64::from(start);
    }
    words.extend([(x >> 32) as u32, x as u32]);
    words.iter().rev().flat_map(|word| word.to_le_bytes()).collect()
}

/// Reads the values of these models from a stream. Words past its end are zeros.
pub fn decode<'a>(bytes: &[u8], models: impl IntoIterator<Item = Model<'a>>) -> Vec<i32> {
    let mut words =
        bytes.chunks_exact(4).map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])));
    let mut word = || words.next().unwrap_or(0);
    let mut x = word();
    x |= word() << 32;
    let mut refill = |x: u64| if x < LEAST { x << 32 | word() } else { x };
    let mut value = |model: Model| {
        let slot = x as u32 & ((1 << PRECISION) - 1);
        let symbol = model.cdf.partition_point(|&c| c <= slot).clamp(1, model.cdf.len() - 1) - 1;
        let (start, end) = (model.cdf[symbol], model.cdf[symbol + 1]);
        x = refill(u64::from(end - start) * (x >> PRECISION) + u64::from(slot) - u64::from(start));
        if symbol as u32 != model.escape() {
            return (symbol as i32).wrapping_add(model.offset);
        }
        let mut digit = || {
            let digit = x as u32 & LAST_DIGIT;
            x = refill(x >> DIGIT);
            digit
        };
        let mut digits = 0;
        loop {
            let more = digit();
            digits += more;
            // A damaged stream may go on; no value has more digits than these.
            if more < LAST_DIGIT || digits > 16 {
                break;
            }
        }
        let raw = (0..digits).fold(0u64, |raw, i| raw | u64::from(digit()).checked_shl(DIGIT * i).unwrap_or(0));
        let v = if raw & 1 == 1 { -1 - (raw >> 1) as i64 } else { (raw >> 1) as i64 + i64::from(model.escape()) };
        v.wrapping_add(model.offset.into()) as i32
    };
    models.into_iter().map(&mut value).collect()
}
