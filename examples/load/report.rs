//! What a run says at its end: a table for people or one object of JSON.

use crate::Outcome;
use crate::args::Traffic;
use crate::process::Process;
use crate::run::{Pace, Summary};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

/// The processor time and memory that a measured time took.
pub(crate) struct Usage {
    server: Option<Process>,
    server_cpu: Duration,
    generator_cpu: Duration,
    generator_waited: Option<Duration>,
    resident: Option<u64>,
}

impl Usage {
    pub(crate) fn before(server: Option<Process>) -> Outcome<Self> {
        Self::read(server)
    }

    /// What was used since, and what is resident now.
    pub(crate) fn until_now(&self) -> Outcome<Self> {
        let now = Self::read(self.server)?;
        Ok(Self {
            server_cpu: now.server_cpu.saturating_sub(self.server_cpu),
            generator_cpu: now.generator_cpu.saturating_sub(self.generator_cpu),
            generator_waited: now
                .generator_waited
                .zip(self.generator_waited)
                .map(|(now, before)| now.saturating_sub(before)),
            ..now
        })
    }

    fn read(server: Option<Process>) -> Outcome<Self> {
        Ok(Self {
            server,
            server_cpu: server
                .map(Process::cpu_time)
                .transpose()?
                .unwrap_or_default(),
            generator_cpu: Process::own().cpu_time()?,
            generator_waited: Process::own().waited(),
            resident: server.map(Process::resident).transpose()?,
        })
    }
}

pub(crate) fn traffic(
    traffic: &Traffic,
    pace: &Pace,
    summary: &Summary,
    latencies: &Histogram<u64>,
) -> Outcome<()> {
    let mut object = json!({
        "subscribers": traffic.subscribers,
        "publishers": traffic.publishers,
        "size": traffic.size,
        "seconds": summary.seconds,
        "messages": summary.measured.completed,
        "messages_per_second": per_second(summary.measured.completed, summary),
        "deliveries": summary.measured.delivered,
        "deliveries_per_second": per_second(summary.measured.delivered, summary),
        "latency_us": {
            "p50": micros(latencies, 0.5),
            "p90": micros(latencies, 0.9),
            "p99": micros(latencies, 0.99),
            "max": micros(latencies, 1.0),
            "samples": latencies.len(),
        },
        "published_total": summary.total.published,
        "delivered_total": summary.total.delivered,
        "lost": summary.lost,
        "duplicates": summary.total.duplicates,
        "out_of_order": summary.total.out_of_order,
        "unexpected": summary.total.unexpected,
        "http_errors": summary.http_errors,
        "first_http_error": summary.first_refusal,
        "generator_cpu_seconds": summary.usage.generator_cpu.as_secs_f64(),
    });
    if let Some(waited) = summary.usage.generator_waited {
        object["generator_wait_seconds"] = json!(waited.as_secs_f64());
    }
    match pace {
        Pace::Window(messages) => object["window"] = json!(messages),
        Pace::Rate { interval, .. } => {
            object["rate"] = json!(1e9 / *interval as f64);
            object["late"] = json!(summary.late);
            object["behind"] = json!(summary.behind);
        }
    }
    if let Some(resident) = summary.usage.resident {
        let cpu = summary.usage.server_cpu;
        let each = cpu.as_secs_f64() * 1e6 / summary.measured.delivered.max(1) as f64;
        object["server_cpu_seconds"] = json!(cpu.as_secs_f64());
        object["server_cpu_us_per_delivery"] = json!(each);
        object["server_resident_bytes"] = json!(resident);
    }
    print(&object, traffic.target.json)
}

/// Prints an object as JSON, or each of its members on a line.
pub(crate) fn print(object: &Value, as_json: bool) -> Outcome<()> {
    let mut text = String::new();
    if as_json {
        writeln!(text, "{object}")?;
    } else {
        write_members(&mut text, "", object)?;
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn write_members(text: &mut String, prefix: &str, object: &Value) -> Outcome<()> {
    for (name, value) in object.as_object().into_iter().flatten() {
        let name = format!("{prefix}{name}");
        match value {
            Value::Null => {}
            Value::Object(_) => write_members(text, &format!("{name}."), value)?,
            value => writeln!(text, "{name:<28}{:>16}", shown(value))?,
        }
    }
    Ok(())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => {
            format!("{:.2}", number.as_f64().unwrap_or_default())
        }
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn per_second(count: u64, summary: &Summary) -> f64 {
    count as f64 / summary.seconds
}

fn micros(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}
