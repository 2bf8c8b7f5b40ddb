//! What a run says at its end: a table for people or one object of JSON.

use crate::Outcome;
use crate::ledger::{Counts, Ledger};
use crate::process::Process;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

/// A measured time, and the processor time and memory that it took.
pub(crate) struct Usage {
    server: Option<Process>,
    read: Instant,
    elapsed: Duration,
    server_cpu: Duration,
    generator_cpu: Duration,
    generator_waited: Option<Duration>,
    server_waited: Option<Duration>,
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
            elapsed: now.read - self.read,
            server_cpu: now.server_cpu.saturating_sub(self.server_cpu),
            generator_cpu: now.generator_cpu.saturating_sub(self.generator_cpu),
            generator_waited: between(self.generator_waited, now.generator_waited),
            server_waited: between(self.server_waited, now.server_waited),
            ..now
        })
    }

    fn read(server: Option<Process>) -> Outcome<Self> {
        Ok(Self {
            server,
            read: Instant::now(),
            elapsed: Duration::ZERO,
            server_cpu: server
                .map(Process::cpu_time)
                .transpose()?
                .unwrap_or_default(),
            generator_cpu: Process::own().cpu_time()?,
            generator_waited: Process::own().waited(),
            server_waited: server.and_then(Process::waited),
            resident: server.map(Process::resident).transpose()?,
        })
    }

    /// Adds itself to a report of so many of something, each with what it cost.
    pub(crate) fn describe(&self, of: &str, count: u64, object: &mut Value) {
        let seconds = self.elapsed.as_secs_f64();
        object["seconds"] = json!(seconds);
        object[format!("{of}_per_second")] = json!(count as f64 / seconds);
        object["generator_cpu_seconds"] = json!(self.generator_cpu.as_secs_f64());
        if let Some(waited) = self.generator_waited {
            object["generator_wait_seconds"] = json!(waited.as_secs_f64());
        }
        if let Some(waited) = self.server_waited {
            object["server_wait_seconds"] = json!(waited.as_secs_f64());
        }
        if let Some(resident) = self.resident {
            let cpu = self.server_cpu.as_secs_f64();
            object["server_cpu_seconds"] = json!(cpu);
            object[format!("{of}_per_server_second")] = json!(count as f64 / cpu.max(0.01));
            object["server_resident_bytes"] = json!(resident);
        }
    }
}

fn between(before: Option<Duration>, now: Option<Duration>) -> Option<Duration> {
    let (before, now) = before.zip(now)?;
    Some(now.saturating_sub(before))
}

/// What became of the messages of a run.
pub(crate) struct Tally {
    /// Over the whole run.
    pub(crate) total: Counts,
    /// Over the measured time.
    pub(crate) measured: Counts,
    pub(crate) lost: u64,
    pub(crate) usage: Usage,
}

impl Tally {
    /// The account as it stands when nothing more is to be waited for.
    pub(crate) fn of(ledger: &Ledger, measured: Counts, usage: Usage) -> Self {
        Self {
            total: ledger.counts(),
            measured,
            lost: ledger.missing(),
            usage,
        }
    }

    /// Whether every delivery was as it should be.
    pub(crate) fn is_clean(&self) -> bool {
        let total = &self.total;
        self.lost + total.duplicates + total.out_of_order + total.unexpected == 0
    }

    /// The part of a report that all runs with messages have.
    pub(crate) fn describe(&self, latencies: &Histogram<u64>) -> Value {
        let mut object = json!({
            "messages": self.measured.completed,
            "deliveries": self.measured.delivered,
            "latency_us": quantiles(latencies),
            "published_total": self.total.published,
            "delivered_total": self.total.delivered,
            "lost": self.lost,
            "duplicates": self.total.duplicates,
            "out_of_order": self.total.out_of_order,
            "unexpected": self.total.unexpected,
        });
        for (of, count) in [
            ("messages", self.measured.completed),
            ("deliveries", self.measured.delivered),
        ] {
            self.usage.describe(of, count, &mut object);
        }
        object
    }
}

/// A distribution of times, in microseconds.
pub(crate) fn quantiles(times: &Histogram<u64>) -> Value {
    json!({
        "p50": micros(times, 0.5),
        "p90": micros(times, 0.9),
        "p99": micros(times, 0.99),
        "max": micros(times, 1.0),
        "samples": times.len(),
    })
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

fn micros(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}
