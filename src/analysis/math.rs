//! Sums in log space and the logarithm of the Beta function. Nothing is exponentiated but differences to a maximum, so
//! an e-value of any size is kept.

/// `ln(exp(a) + exp(b))`; minus infinity stands for a zero.
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// `ln` of the sum of `exp` of all terms; minus infinity without any.
pub(super) fn log_sum(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + terms.map(|term| (term - max).exp()).sum::<f64>().ln()
}

/// Where an increasing function crosses zero: the bracket is halved until it stops shrinking.
pub(super) fn bisect(mut low: f64, mut high: f64, is_below: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if is_below(middle) { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Kullback-Leibler divergence of two coins, in nats. `q` within 0..1, `b` strictly.
pub(super) fn divergence(q: f64, b: f64) -> f64 {
    let term = |p: f64, other: f64| if p > 0.0 { p * (p / other).ln() } else { 0.0 };
    term(q, b) + term(1.0 - q, 1.0 - b)
}

/// `ln B(a, b)` for positive arguments.
pub(super) fn log_beta(a: f64, b: f64) -> f64 {
    log_gamma(a) + log_gamma(b) - log_gamma(a + b)
}

/// Stirling's series, after the argument has been raised to where it is exact to the last digits.
fn log_gamma(x: f64) -> f64 {
    let (mut x, mut below) = (x, 0.0);
    while x < 16.0 {
        below += x.ln();
        x += 1.0;
    }
    let square = x * x;
    let series = (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / (1680.0 * square)) / square) / square) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_survive_any_size() {
        assert_eq!(log_add(f64::NEG_INFINITY, f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert_eq!(log_add(f64::NEG_INFINITY, 3.0), 3.0);
        assert!((log_add(1e6, 1e6) - (1e6 + 2f64.ln())).abs() < 1e-9);
        assert_eq!(log_sum([-1e300, 1e300].into_iter()), 1e300);
        assert_eq!(log_sum(std::iter::empty()), f64::NEG_INFINITY);
    }

    #[test]
    fn gamma_is_the_factorial_and_the_root_of_pi() {
        assert!((log_gamma(0.5) - 0.5 * std::f64::consts::PI.ln()).abs() < 1e-13);
        let mut factorial = 0.0;
        for n in 1..60 {
            assert!((log_gamma(f64::from(n)) - factorial).abs() < 1e-12 * (1.0 + factorial), "{n}");
            factorial += f64::from(n).ln();
        }
    }

    #[test]
    fn equal_coins_do_not_diverge() {
        assert_eq!(divergence(0.3, 0.3), 0.0);
        assert!((divergence(0.0, 0.5) - 2f64.ln()).abs() < 1e-15);
    }
}
