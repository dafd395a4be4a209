//! What part of its weight an endpoint has that was (re)admitted a while ago. Pure.

use std::time::Duration;

/// It begins with this: with nothing it would never warm up.
const FLOOR: f64 = 0.1;

/// The part of its weight, above 0 to 1, `age` after it was admitted; it grows evenly `over` this time.
pub(super) fn factor(age: Duration, over: Duration) -> f64 {
    if age >= over {
        return 1.0;
    }
    FLOOR + (1.0 - FLOOR) * age.as_secs_f64() / over.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_grows_evenly_from_a_tenth() {
        let ms = Duration::from_millis;
        for (age, over, part) in
            [(0, 1000, 0.1), (500, 1000, 0.55), (999, 1000, 0.9991), (1000, 1000, 1.0), (5000, 1000, 1.0), (0, 0, 1.0)]
        {
            assert!((factor(ms(age), ms(over)) - part).abs() < 1e-9, "{age} of {over}");
        }
    }
}
