//! One metric with all its series.

use prometheus::proto;

use super::PREFIX;
use crate::apps::{Distribution, Timing};

/// The kinds that we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric.
pub(super) struct Family {
    /// Without the prefix.
    name: &'static str,
    kind: Kind,
    help: &'static str,
    labels: &'static [&'static str],
    samples: Vec<Sample>,
}

struct Sample {
    /// In the order of [`Family::labels`].
    labels: Vec<String>,
    value: Value,
}

enum Value {
    Number(f64),
    /// Times, and how many of the unit a second has.
    Times(Distribution, f64),
}

impl Family {
    pub(super) fn new(
        kind: Kind,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            help,
            labels,
            samples: Vec::new(),
        }
    }

    /// One that has a single series.
    pub(super) fn single(kind: Kind, name: &'static str, value: f64, help: &'static str) -> Self {
        let mut family = Self::new(kind, name, &[], help);
        family.add(&[], value);
        family
    }

    /// Adds a series.
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has no other numbers than these"
    )]
    pub(super) fn count(&mut self, labels: &[&str], value: u64) {
        self.add(labels, value as f64);
    }

    /// Adds a series.
    pub(super) fn add(&mut self, labels: &[&str], value: f64) {
        self.push(labels, Value::Number(value));
    }

    /// Adds a histogram, in units of which a second has `per_second`.
    pub(super) fn times(&mut self, labels: &[&str], times: Distribution, per_second: f64) {
        self.push(labels, Value::Times(times, per_second));
    }

    fn push(&mut self, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), self.labels.len(), "{}", self.name);
        self.samples.push(Sample {
            labels: labels.iter().map(ToString::to_string).collect(),
            value,
        });
    }

    pub(super) fn encode(&self) -> proto::MetricFamily {
        let mut family = proto::MetricFamily::default();
        family.set_name(format!("{PREFIX}{}", self.name));
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge => proto::MetricType::GAUGE,
            Kind::Histogram => proto::MetricType::HISTOGRAM,
        });
        let metrics = self.samples.iter().map(|sample| self.metric(sample));
        family.set_metric(metrics.collect());
        family
    }

    fn metric(&self, sample: &Sample) -> proto::Metric {
        let pairs = self.labels.iter().zip(&sample.labels);
        let labels = pairs.map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.clone());
            pair
        });
        let mut metric = proto::Metric::from_label(labels.collect());
        match (&sample.value, self.kind) {
            (Value::Number(value), Kind::Counter) => {
                let mut counter = proto::Counter::default();
                counter.set_value(*value);
                metric.set_counter(counter);
            }
            (Value::Number(value), _) => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(*value);
                metric.set_gauge(gauge);
            }
            (Value::Times(times, per_second), _) => {
                metric.set_histogram(histogram(times, *per_second));
            }
        }
        metric
    }

    /// Its row in the documentation.
    pub(super) fn row(&self) -> String {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<_> = self.labels.iter().map(|it| format!("`{it}`")).collect();
        let (name, labels, help) = (self.name, labels.join(", "), self.help);
        format!("| `{PREFIX}{name}` | {kind} | {labels} | {help} |")
    }
}

fn histogram(times: &Distribution, per_second: f64) -> proto::Histogram {
    let mut sum = 0;
    let bounds = Timing::BOUNDS.iter().zip(&times.counts);
    let buckets = bounds.map(|(bound, count)| {
        sum += count;
        let mut bucket = proto::Bucket::default();
        // Not 0.30000000000000004 for what was meant as 0.3.
        let bound = (bound * per_second * 1e6).round() / 1e6;
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(sum);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(times.counts.iter().sum());
    histogram.set_sample_sum(times.sum.as_secs_f64() * per_second);
    histogram
}
