//! Percentiles over every latency of a window, and medians over rounds.

use std::time::Duration;

use crate::Failure;

/// One measurement of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) calls_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU of the measured processes per call.
    pub(crate) cpu_us: f64,
    /// CPU of the load generator per call.
    pub(crate) client_us: f64,
}

/// CPU time spent inside a window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) measured: Duration,
    pub(crate) client: Duration,
}

impl Sample {
    /// Sums up a window from the latencies, in nanoseconds, of the calls that ended in it.
    ///
    /// # Errors
    ///
    /// No call ended inside the window.
    pub(crate) fn from_window(mut latencies: Vec<u64>, elapsed: Duration, spent: Spent) -> Result<Self, Failure> {
        if latencies.is_empty() {
            return Err("no call ended inside the window; measure longer with --seconds".into());
        }
        latencies.sort_unstable();
        let calls = latencies.len() as f64;
        Ok(Self {
            calls_per_second: calls / elapsed.as_secs_f64(),
            p50_us: percentile(&latencies, 0.50) as f64 / 1_000.0,
            p99_us: percentile(&latencies, 0.99) as f64 / 1_000.0,
            cpu_us: spent.measured.as_secs_f64() * 1e6 / calls,
            client_us: spent.client.as_secs_f64() * 1e6 / calls,
        })
    }

    /// The median of every figure over the rounds, each figure on its own.
    pub(crate) fn median_of(samples: &[Self]) -> Option<Self> {
        let of = |figure: fn(&Self) -> f64| median(samples.iter().map(figure).collect());
        Some(Self {
            calls_per_second: of(|sample| sample.calls_per_second)?,
            p50_us: of(|sample| sample.p50_us)?,
            p99_us: of(|sample| sample.p99_us)?,
            cpu_us: of(|sample| sample.cpu_us)?,
            client_us: of(|sample| sample.client_us)?,
        })
    }
}

/// The smallest value that at least the share `q` of a sorted, non-empty list does not exceed.
fn percentile(sorted: &[u64], q: f64) -> u64 {
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(values[middle - 1], upper))
}

#[cfg(test)]
mod tests {
    use super::{Sample, Spent, median, percentile};
    use std::time::Duration;

    #[test]
    fn percentiles_are_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 0.50), 50);
        assert_eq!(percentile(&hundred, 0.99), 99);
        assert_eq!(percentile(&hundred, 1.0), 100);
        assert_eq!(percentile(&[7], 0.99), 7);
        assert_eq!(percentile(&[1, 2, 3], 0.0), 1);
    }

    #[test]
    fn a_window_is_summed_up_from_unsorted_latencies() {
        let spent = Spent { measured: Duration::from_millis(1), client: Duration::from_millis(2) };
        let latencies = vec![4_000, 1_000, 3_000, 2_000];
        let sample = Sample::from_window(latencies, Duration::from_secs(2), spent).unwrap();
        assert_eq!(sample, Sample { calls_per_second: 2.0, p50_us: 2.0, p99_us: 4.0, cpu_us: 250.0, client_us: 500.0 });
        Sample::from_window(Vec::new(), Duration::from_secs(1), spent).unwrap_err();
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
