//! The distribution of one figure over requests, in bounded memory.
//!
//! Small numbers of values are kept as they are, so that their quantiles are
//! exact; more go into a histogram with a relative error below 1 %. Total, mean
//! and maximum are always exact.

use hdrhistogram::Histogram;

/// Values kept exactly: 512 bytes.
const EXACT_MAX: usize = 64;

/// Two significant digits: a histogram of values up to 2^30 takes 12 KiB with
/// 32-bit counters.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Values of one figure.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    total: u64,
    count: u64,
    max: u64,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    Exact(Vec<u64>),
    Histogram(Box<Histogram<u32>>),
}

impl Default for Values {
    fn default() -> Self {
        Values::Exact(Vec::new())
    }
}

impl Distribution {
    /// Adds one request's value.
    pub fn record(&mut self, value: u64) {
        self.total = self.total.saturating_add(value);
        self.count += 1;
        self.max = self.max.max(value);
        match &mut self.values {
            Values::Exact(values) if values.len() < EXACT_MAX => values.push(value),
            Values::Exact(values) => {
                if let Ok(mut histogram) = Histogram::new(SIGNIFICANT_DIGITS) {
                    histogram.auto(true);
                    for value in values.iter().chain([&value]) {
                        add(&mut histogram, *value);
                    }
                    self.values = Values::Histogram(Box::new(histogram));
                }
            }
            Values::Histogram(histogram) => add(histogram, value),
        }
    }

    /// Sum of all values.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest value, 0 without any.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The smallest value that at least this share of all values does not
    /// exceed (nearest rank), 0 without any. `share` is between 0 and 1.
    pub fn quantile(&self, share: f64) -> u64 {
        match &self.values {
            Values::Exact(values) => {
                let mut sorted = values.clone();
                sorted.sort_unstable();
                let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
                sorted.get(rank - 1).copied().unwrap_or(0)
            }
            Values::Histogram(histogram) => histogram.value_at_quantile(share).min(self.max),
        }
    }
}

/// Adds a value; the histogram grows to hold it.
fn add(histogram: &mut Histogram<u32>, value: u64) {
    if histogram.record(value).is_err() {
        histogram.saturating_record(value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_distribution_is_all_zeros() {
        let empty = Distribution::default();
        assert_eq!((empty.total(), empty.count(), empty.max()), (0, 0, 0));
        assert_eq!(empty.quantile(0.5), 0);
    }

    proptest! {
        /// Quantiles are exact for few values and within 1 % for many.
        #[test]
        fn quantiles_are_close(mut values in prop::collection::vec(0u64..1 << 40, 1..300)) {
            let mut distribution = Distribution::default();
            for value in &values {
                distribution.record(*value);
            }
            values.sort_unstable();
            prop_assert_eq!(distribution.total(), values.iter().sum::<u64>());
            prop_assert_eq!(Some(&distribution.max()), values.last());
            for share in [0.5, 0.9, 0.99] {
                let rank = (share * values.len() as f64).ceil() as usize - 1;
                let exact = values[rank];
                let told = distribution.quantile(share);
                let tolerance = if values.len() <= EXACT_MAX { 0 } else { exact / 100 + 1 };
                prop_assert!(told.abs_diff(exact) <= tolerance, "{told} for {exact}");
            }
        }
    }
}
