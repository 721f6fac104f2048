//! Twin of `sample/sample`: the same integers in the same order, so the same token.

use crate::ops::sample::Sampling;

/// Lanes of the kernel: cumulative mass runs over tokens in the order (i mod 256, i / 256).
const LANES: usize = 256;

/// Four words of Philox4x32-10 (Salmon et al., SC 2011).
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// What was chosen, and how close the choice was to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The token; `None` if no logit is a number.
    pub token: Option<u32>,
    /// Tokens that passed the filters.
    pub candidates: usize,
    /// Distance of the random mass from the nearest edge of the chosen token's share, and of the top-p mass from the nearest
    /// threshold, as a fraction of all mass: rounding of `exp` can change the choice only where this is tiny.
    pub margin: f64,
}

/// Chooses a token as the kernel does. `recent`: tokens the repetition penalty applies to, none twice.
pub fn sample(sampling: &Sampling, logits: &[f32], recent: &[u32], position: u32) -> Choice {
    let mut logits = logits.to_vec();
    for t in recent {
        if let Some(l) = logits.get_mut(*t as usize) {
            *l = if *l > 0.0 { *l / sampling.repetition_penalty } else { *l * sampling.repetition_penalty };
        }
    }
    let best =
        (0..logits.len()).filter(|i| !logits[*i].is_nan()).reduce(|b, i| if logits[i] > logits[b] { i } else { b });
    let Some(best) = best else { return Choice { token: None, candidates: 0, margin: 1.0 } };
    let sharpness = sampling.sharpness();
    if sharpness == 0.0 {
        return Choice { token: Some(best as u32), candidates: 1, margin: 1.0 };
    }

    // (key, mass) of every token within reach, in f32 as on the GPU; only exp may differ there, by its last bits.
    let tokens: Vec<Option<(u32, u64)>> = logits
        .iter()
        .map(|l| {
            let d = (logits[best] - l) * sharpness;
            let mass = ((-f64::from(d)).exp() * 16_777_216.0 + 0.5) as u64;
            (d < 17.0).then_some(((d * 67_108_864.0) as u32, mass))
        })
        .collect();
    let mut ranked: Vec<(u32, u64)> = tokens.iter().flatten().copied().collect();
    ranked.sort_unstable_by_key(|t| t.0);
    let mut limit = u32::MAX;
    if sampling.top_k > 0 && ranked.len() > sampling.top_k as usize {
        limit = ranked[sampling.top_k as usize - 1].0;
    }
    ranked.retain(|t| t.0 <= limit);
    let mut margin = 1.0f64;
    let fraction = sampling.top_p_fraction();
    if fraction > 0 {
        let all: u64 = ranked.iter().map(|t| t.1).sum();
        let goal = ((u128::from(all) * u128::from(fraction)) >> 32) as u64;
        let mut running = 0;
        for (i, (key, mass)) in ranked.iter().enumerate() {
            running += mass;
            // Tokens of one key stay or go together.
            if ranked.get(i + 1).is_some_and(|next| next.0 == *key) {
                continue;
            }
            margin = margin.min(running.abs_diff(goal) as f64 / all as f64);
            if running >= goal {
                limit = *key;
                break;
            }
        }
    }
    let kept = |i: usize| {
        tokens.get(i).copied().flatten().filter(|t| t.0 <= limit && t.1 >= u64::from(sampling.min_mass())).map(|t| t.1)
    };
    let order: Vec<usize> = (0..LANES).flat_map(|lane| (lane..tokens.len()).step_by(LANES)).collect();
    let total: u64 = order.iter().filter_map(|i| kept(*i)).sum();
    let random = philox([position, 0, 0, 0], [sampling.seed as u32, (sampling.seed >> 32) as u32])[0];
    let ball = ((u128::from(total) * u128::from(random)) >> 32) as u64 + 1;
    let candidates = order.iter().filter(|i| kept(**i).is_some()).count();
    let mut running = 0;
    for i in order {
        let Some(mass) = kept(i) else { continue };
        running += mass;
        if running >= ball {
            let edge = (running - ball).min(ball - (running - mass));
            margin = margin.min(edge as f64 / total as f64);
            return Choice { token: Some(i as u32), candidates, margin };
        }
    }
    // The best token always has mass, so the ball lies within the total.
    Choice { token: None, candidates, margin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        // Random123, kat_vectors, philox4x32 10 rounds.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let sampling = Sampling { temperature: 1.0, ..Default::default() };
        let mut counts = [0u32; 4];
        for position in 0..20_000 {
            counts[sample(&sampling, &logits, &[], position).token.unwrap() as usize] += 1;
        }
        // Five standard deviations of a binomial of 20,000.
        for (count, p) in counts.iter().zip([0.5, 0.3, 0.15, 0.05f64]) {
            let sigma = (20_000.0 * p * (1.0 - p)).sqrt();
            assert!((f64::from(*count) - 20_000.0 * p).abs() < 5.0 * sigma, "{counts:?}");
        }
    }

    #[test]
    fn filters_keep_what_transformers_keeps() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let kept = |s: Sampling| sample(&s, &logits, &[], 0).candidates;
        let warm = Sampling { temperature: 1.0, ..Default::default() };
        assert_eq!(kept(warm), 4);
        assert_eq!(kept(Sampling { top_k: 3, ..warm }), 3);
        assert_eq!(kept(Sampling { top_p: 0.6, ..warm }), 2);
        assert_eq!(kept(Sampling { top_p: 0.81, ..warm }), 3);
        assert_eq!(kept(Sampling { top_k: 2, top_p: 0.6, ..warm }), 1, "0.5 of 0.8 is more than 0.6");
        assert_eq!(kept(Sampling { min_p: 0.25, ..warm }), 3);
        assert_eq!(kept(Sampling { temperature: 0.5, min_p: 0.25, ..warm }), 2);
        assert_eq!(
            sample(&Sampling { repetition_penalty: 3.0, ..Default::default() }, &logits, &[0], 0).token,
            Some(1)
        );
    }
}
