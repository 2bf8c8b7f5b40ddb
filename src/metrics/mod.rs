//! What is counted, in the text format of Prometheus.
//!
//! Nothing is collected before somebody asks: what applications count lies in their
//! [`Counters`](crate::apps::Counters), which each thread adds to for itself, and is added up then. What happens in
//! the hub comes in as a [`Sink`](crate::hub::Sink) of its events ([`sink`]).
//!
//! Labels are bounded: applications, and values of enums; never a channel, a user or an
//! address. With more than a hundred applications, a value of an enum has a series only
//! once it was counted.
//!
//! Some names are those of soketi and Sockudo below our prefix, so that their boards
//! work (`compatible`); the others are as Prometheus wants them.

mod applications;
mod compatible;
mod family;
mod node;
pub mod sink;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;

use crate::apps::AppRegistry;
use crate::broker::Broker;
use crate::hub::Hub;
use crate::lifecycle::Lifecycle;
use crate::webhooks::Webhooks;
use crate::worker::{BacklogTotal, ConnectionPermits};
use applications::Application;
use family::Family;

/// What all our names begin with.
const PREFIX: &str = "resound_";

/// Applications up to which all values of all labels have a series from the start.
const MAX_WHOLE: usize = 100;

/// When certificates end, in seconds since 1970, by their files. Others take their place
/// while the server runs.
pub type CertificateEnds = Arc<ArcSwap<BTreeMap<String, u64>>>;

/// Where the numbers are.
#[derive(Clone)]
pub struct Metrics {
    /// The applications.
    pub apps: Arc<AppRegistry>,
    /// The channels.
    pub hub: Arc<Hub>,
    /// The link to other nodes.
    pub broker: Broker,
    /// What waits to be written.
    pub backlog: Arc<BacklogTotal>,
    /// Connections of any kind.
    pub permits: Arc<ConnectionPermits>,
    /// How many threads own sockets.
    pub workers: usize,
    /// Where the server is in its life.
    pub lifecycle: Lifecycle,
    /// What TLS is served with, if it is.
    pub certificates: CertificateEnds,
    /// When it was started.
    pub started: SystemTime,
    /// What applications are told of.
    pub webhooks: Webhooks,
    /// The port that clients connect to, which is a label in soketi's boards.
    pub port: u16,
}

impl Metrics {
    /// All numbers as they are now.
    pub fn render(&self) -> String {
        let mut families: Vec<_> = self.families().iter().map(Family::encode).collect();
        families.extend(of_the_process());
        // Without an application, some have no sample, which the encoder refuses.
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new()
            .encode_to_string(&families)
            .expect("a String takes every text")
    }

    fn families(&self) -> Vec<Family> {
        let registered = self.apps.all();
        let apps: Vec<Application<'_>> = registered
            .iter()
            .map(|app| Application::new(app, registered.len() <= MAX_WHOLE))
            .collect();
        let others = Application::unattributed(self.apps.unattributed());
        let mut families = applications::families(&apps, &others);
        families.extend(compatible::families(&apps, &others, self.port));
        families.extend(node::families(self));
        families
    }

    /// A list of all metrics, for the documentation: a row of a table each.
    pub fn table(&self) -> String {
        let process = of_the_process();
        let process = process.iter().map(|family| {
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            format!("| `{}` | {kind} | | {} |", family.name(), family.help())
        });
        let rows = self.families();
        let rows = rows.iter().map(Family::row).chain(process);
        rows.map(|row| row + "\n").collect()
    }
}

/// What Prometheus' clients tell of every process; it is read out of `/proc`, which only Linux has.
fn of_the_process() -> Vec<MetricFamily> {
    #[cfg(target_os = "linux")]
    {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        prometheus::core::Collector::collect(&process)
    }
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}
