//! Numbers as people read them.

/// Megabytes (10⁶ bytes), the unit of sizes in tables.
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// A size with its unit: "612 B", "27.4 kB", "98.4 MB", "1.20 GB".
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// A count in thousands, millions or billions: "612", "27.4 k", "134.5 M", "1.20 B".
pub fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

/// Three significant digits, without an exponent where that stays short: "0.00142", "12.3", "3.1e-7".
pub fn significant(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !value.is_finite() {
        value.to_string()
    } else if !(1e-4..1e7).contains(&magnitude) {
        format!("{value:.1e}")
    } else {
        // Of the rounded number: 0.9996 is 1.00.
        let rounded = format!("{magnitude:.2e}").parse().unwrap_or(magnitude);
        let digits = (2 - rounded.log10().floor() as i32).max(0) as usize;
        format!("{value:.digits$}")
    }
}

/// Microseconds in the unit that suits them: "12.4 µs", "75.0 ms", "1.21 s".
pub fn microseconds(us: f64) -> String {
    // What rounds to the next unit's 1 is written in that.
    match us {
        ..999.5 => format!("{} µs", significant(us)),
        999.5..999_500.0 => format!("{} ms", significant(1e-3 * us)),
        _ => format!("{} s", significant(1e-6 * us)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let cases =
            [(0.84, "0.840 µs"), (999.4, "999 µs"), (999.6, "1.00 ms"), (74_961.0, "75.0 ms"), (1_212_022.0, "1.21 s")];
        for (us, text) in cases {
            assert_eq!(microseconds(us), text);
        }
    }

    #[test]
    fn sizes_and_values_are_short() {
        assert_eq!([bytes(612), bytes(98_362_432), bytes(1_200_000_000)], ["612 B", "98.4 MB", "1.20 GB"]);
        assert_eq!([count(9_999), count(134_515_008)], ["9999", "134.5 M"]);
        let shown = [0.0, 0.001_42, 0.9996, 12.345, 1234.5, 3.14e-7, -0.5, f64::INFINITY].map(significant);
        assert_eq!(shown, ["0", "0.00142", "1.00", "12.3", "1234", "3.1e-7", "-0.500", "inf"]);
    }
}
