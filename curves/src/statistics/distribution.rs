//! Student's t by the regularised incomplete beta function, as a continued
//! fraction (Numerical Recipes, 3rd edition, 6.4).

/// Chance of a value above `t` (not negative) with `df` degrees of freedom.
pub(super) fn t_upper(t: f64, df: f64) -> f64 {
    if !t.is_finite() {
        return 0.0;
    }
    0.5 * incomplete_beta(df / 2.0, 0.5, df / (df + t * t))
}

/// The value below which a share `q` (0.5 to 1) lies.
pub(super) fn t_quantile(q: f64, df: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while t_upper(high, df) > 1.0 - q && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if t_upper(middle, df) > 1.0 - q {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// Lanczos' approximation, g = 7.
fn ln_gamma(x: f64) -> f64 {
    const C: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let sum: f64 = C[0] + C[1..].iter().enumerate().map(|(i, c)| c / (x + i as f64 + 1.0)).sum::<f64>();
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(a, b, x) / a
    } else {
        1.0 - front * fraction(b, a, 1.0 - x) / b
    }
}

fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let away = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut h = d;
    for m in 1..300 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        h *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        h *= d * c;
        if (d * c - 1.0).abs() < 1e-14 {
            break;
        }
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (q, df, t) in [
            (0.975, 1.0, 12.706_2),
            (0.975, 4.0, 2.776_4),
            (0.95, 10.0, 1.812_5),
            (0.995, 30.0, 2.750_0),
            (0.975, 1000.0, 1.962_3),
        ] {
            assert!((t_quantile(q, df) - t).abs() < 1e-3, "{q} {df}: {}", t_quantile(q, df));
        }
        assert!((t_upper(0.0, 5.0) - 0.5).abs() < 1e-12);
        assert!(t_upper(f64::INFINITY, 5.0) == 0.0);
    }
}
