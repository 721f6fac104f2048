//! FP4 of bitsandbytes: a sign and 8 magnitudes, in no monotone order. Planes and scales: [`super::absmax`].

use super::absmax::Codebook;

pub(super) static FP4: Codebook = Codebook {
    name: "fp4",
    values: {
        let mut values = [0.0; 16];
        let mut code = 0;
        while code < 8 {
            values[code] = MAGNITUDES[code];
            values[code + 8] = -MAGNITUDES[code];
            code += 1;
        }
        values
    },
    nearest,
};

/// Values of codes 0..8: 0, 1/192, 2/3, 1, 1/3, 1/2, 1/6, 1/4.
const MAGNITUDES: [f32; 8] = [0.0, 0.005_208_333_3, 0.666_666_7, 1.0, 0.333_333_34, 0.5, 0.166_666_67, 0.25];

/// The codes in order of magnitude.
const ASCENDING: [u8; 8] = [0, 1, 6, 7, 4, 5, 2, 3];

/// The sign, and the code of the nearest magnitude: as many steps up as there are midpoints below it.
fn nearest(x: f32) -> u8 {
    let steps = ASCENDING.windows(2).filter(|pair| {
        let [below, above] = [pair[0], pair[1]].map(|code| MAGNITUDES[usize::from(code)]);
        x.abs() > (below + above) / 2.0
    });
    let code = ASCENDING[steps.count()];
    // Zero has one code: decoded weights then hold no −0.
    if x < 0.0 && code != 0 { code + 8 } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_code_has_the_nearest_value() {
        for i in -1000..=1000 {
            let x = i as f32 / 1000.0;
            let distance = |code: u8| (FP4.values[usize::from(code)] - x).abs();
            let best = (0..16).map(distance).fold(f32::INFINITY, f32::min);
            assert!(distance(nearest(x)) <= best + 1e-7, "{x}");
        }
    }

    #[test]
    fn every_value_is_its_own_code() {
        for (code, value) in FP4.values.into_iter().enumerate() {
            assert_eq!(usize::from(nearest(value)), if code == 8 { 0 } else { code });
        }
    }
}
