//! The command line. Every count and every time has an upper bound, so that no
//! run can go on without end.

use crate::message::MIN_SIZE;
use clap::builder::RangedU64ValueParser;
use clap::{Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Longer data than this would not fit an empty send buffer in one write.
const MAX_SIZE: usize = 32 * 1024;
/// Published data may be as long as servers take by default.
const MAX_EVENT_SIZE: usize = 100 * 1024;

/// Puts load on a server that speaks the Pusher protocol, and accounts for
/// every delivery.
#[derive(Parser)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Publishes as fast as a window of messages in flight allows.
    Fanout(Fanout),
    /// Publishes at a fixed rate.
    Rate(Rate),
    /// Publishes as fast as it is answered, to channels of one subscriber each.
    Publish(Traffic),
    /// Sends client events in many small rooms.
    Whisper(Whisper),
    /// Connects, subscribes and closes, over and over.
    Churn(Churn),
    /// Subscribes and unsubscribes on sockets that stay.
    Resubscribe(Resubscribe),
    /// Joins and leaves a presence channel of thousands.
    Presence(Presence),
    /// Fills a presence channel, until every node lists everybody.
    Gather(Gather),
    /// Sends messages through a Redis at a fixed rate, without any other server.
    Redis(Redis),
    /// Closes thousands of connections at once and measures the answers to
    /// another one's pings meanwhile.
    Disconnect(Disconnect),
    /// Ends a server that drains, connects anew whenever it closes a connection, and
    /// measures how long publishes take meanwhile.
    Drain(Drain),
    /// Holds idle connections and measures the server's memory.
    Idle(Idle),
    /// Sends a burst of messages to connections that are idle before and after,
    /// and compares the server's memory.
    Burst(Burst),
    /// Floods a channel, kills thousands of members of another one, and measures
    /// how long a third one's messages take meanwhile.
    Fairness(Fairness),
    /// Sends pings and client events on one connection as fast as it takes them,
    /// and measures how long another channel's messages take meanwhile.
    Greedy(Greedy),
    /// Sends refused subscriptions or pongs on some connections as fast as they take
    /// them, and measures how long a quiet one waits for the answers to its pings.
    Floods(Floods),
}

#[derive(clap::Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub(crate) traffic: Traffic,
    /// Messages in flight: published, but not yet with every subscriber.
    #[arg(long, default_value_t = 32, value_parser = between(1, 4096))]
    pub(crate) window: usize,
}

#[derive(clap::Args)]
pub(crate) struct Rate {
    #[command(flatten)]
    pub(crate) traffic: Traffic,
    /// Messages per second.
    #[arg(long, default_value_t = 20, value_parser = between(1, 100_000))]
    pub(crate) rate: usize,
    /// More subscribers, who stop reading; the server has to close them.
    #[arg(long, default_value_t = 0, value_parser = between(0, 100))]
    pub(crate) stalled: usize,
}

#[derive(clap::Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many connections to hold.
    #[arg(long, default_value_t = 10_000, value_parser = between(1, 200_000))]
    pub(crate) subscribers: usize,
    /// The channel to subscribe to; its number is added if there are several.
    #[arg(long, default_value = "private-idle")]
    pub(crate) channel: String,
    /// Over how many channels the connections are spread.
    #[arg(long, default_value_t = 1, value_parser = between(1, 200_000))]
    pub(crate) channels: usize,
    /// Seconds of silence before the last measurement.
    #[arg(long, default_value_t = 3, value_parser = between(0, 600))]
    pub(crate) silence: usize,
}

#[derive(clap::Args)]
pub(crate) struct Burst {
    #[command(flatten)]
    pub(crate) traffic: Traffic,
    /// Messages, all published at once.
    #[arg(long, default_value_t = 200, value_parser = between(1, 4096))]
    pub(crate) messages: usize,
    /// Seconds of silence before the burst.
    #[arg(long, default_value_t = 3, value_parser = between(0, 600))]
    pub(crate) quiet: usize,
    /// Seconds of silence after it, before the last measurement.
    #[arg(long, default_value_t = 10, value_parser = between(0, 600))]
    pub(crate) silence: usize,
}

/// A channel with one subscriber, whose messages tell how long others wait.
#[derive(clap::Args)]
pub(crate) struct Probe {
    /// Messages per second to the channel that is measured.
    #[arg(long, default_value_t = 20, value_parser = between(1, 1000))]
    pub(crate) rate: usize,
    /// The channel that is measured.
    #[arg(long, default_value = "private-probe")]
    pub(crate) probe_channel: String,
}

#[derive(clap::Args)]
pub(crate) struct Fairness {
    /// The flood.
    #[command(flatten)]
    pub(crate) traffic: Traffic,
    /// Messages of the flood in flight.
    #[arg(long, default_value_t = 32, value_parser = between(1, 4096))]
    pub(crate) window: usize,
    #[command(flatten)]
    pub(crate) probe: Probe,
    /// Members of the presence channel.
    #[arg(long, default_value_t = 6000, value_parser = between(2, 20_000))]
    pub(crate) members: usize,
    /// How many of them are killed; at least one stays.
    #[arg(long, default_value_t = 4000, value_parser = between(1, 20_000))]
    pub(crate) killed: usize,
    /// The presence channel.
    #[arg(long, default_value = "presence-fairness")]
    pub(crate) presence_channel: String,
}

#[derive(clap::Args)]
pub(crate) struct Greedy {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) probe: Probe,
    /// Bytes of the data of a client event.
    #[arg(long, default_value_t = 200, value_parser = between(MIN_SIZE, MAX_SIZE))]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) span: Span,
    /// The channel of the greedy client, who is alone in it.
    #[arg(long, default_value = "private-greedy")]
    pub(crate) channel: String,
}

/// What floods consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flood {
    /// Subscriptions with a wrong signature.
    Subscribes,
    /// Pongs of both protocols by turns.
    Pongs,
}

#[derive(clap::Args)]
pub(crate) struct Floods {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Connections that send as fast as they can.
    #[arg(long, default_value_t = 4, value_parser = between(1, 1024))]
    pub(crate) floods: usize,
    /// What they send.
    #[arg(long, default_value = "subscribes")]
    pub(crate) kind: Flood,
    /// Milliseconds between two pings of the quiet connection.
    #[arg(long, default_value_t = 10, value_parser = between(1, 1000))]
    pub(crate) interval: usize,
    #[command(flatten)]
    pub(crate) span: Span,
}

#[derive(clap::Args)]
pub(crate) struct Whisper {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many rooms, each a channel of its own.
    #[arg(long, default_value_t = 50, value_parser = between(1, 10_000))]
    pub(crate) rooms: usize,
    /// Sockets in each room.
    #[arg(long, default_value_t = 20, value_parser = between(2, 1000))]
    pub(crate) members: usize,
    /// Events in flight in each room: sent, but not yet with every other member.
    #[arg(long, default_value_t = 4, value_parser = between(1, 256))]
    pub(crate) window: usize,
    /// Bytes of the data of an event.
    #[arg(long, default_value_t = 200, value_parser = between(MIN_SIZE, MAX_SIZE))]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) span: Span,
    /// The channel of a room; its number is added if there are several.
    #[arg(long, default_value = "private-room")]
    pub(crate) channel: String,
}

#[derive(clap::Args)]
pub(crate) struct Churn {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Files that the server may keep open, which are none of the visitors'.
    #[arg(long, default_value_t = 0, value_parser = between(0, 1000))]
    pub(crate) keeps: usize,
    /// Connections at a time.
    #[arg(long, default_value_t = 64, value_parser = between(1, 1024))]
    pub(crate) visitors: usize,
    /// The channel to subscribe to; its number is added if there are several.
    #[arg(long, default_value = "private-churn")]
    pub(crate) channel: String,
    /// Over how many channels the connections are spread.
    #[arg(long, default_value_t = 100, value_parser = between(1, 10_000))]
    pub(crate) channels: usize,
    #[command(flatten)]
    pub(crate) span: Span,
}

#[derive(clap::Args)]
pub(crate) struct Resubscribe {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Sockets that subscribe and unsubscribe.
    #[arg(long, default_value_t = 200, value_parser = between(1, 10_000))]
    pub(crate) sockets: usize,
    /// Operations of a socket on their way; as many subscriptions as
    /// unsubscriptions.
    #[arg(long, default_value_t = 16, value_parser = between(2, 256))]
    pub(crate) pipeline: usize,
    /// The channel to subscribe to; its number is added if there are several.
    #[arg(long, default_value = "private-turn")]
    pub(crate) channel: String,
    /// Over how many channels the subscriptions are spread.
    #[arg(long, default_value_t = 100, value_parser = between(1, 10_000))]
    pub(crate) channels: usize,
    #[command(flatten)]
    pub(crate) span: Span,
}

#[derive(clap::Args)]
pub(crate) struct Presence {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Members who stay.
    #[arg(long, default_value_t = 10_000, value_parser = between(1, 20_000))]
    pub(crate) members: usize,
    /// Sockets that join and leave.
    #[arg(long, default_value_t = 4, value_parser = between(1, 64))]
    pub(crate) visitors: usize,
    #[command(flatten)]
    pub(crate) span: Span,
    /// The channel.
    #[arg(long, default_value = "presence-hall")]
    pub(crate) channel: String,
}

#[derive(clap::Args)]
pub(crate) struct Gather {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Members, each a user of its own.
    #[arg(long, default_value_t = 2000, value_parser = between(1, 20_000))]
    pub(crate) members: usize,
    /// Members who join at a time.
    #[arg(long, default_value_t = 32, value_parser = between(1, 1024))]
    pub(crate) joining: usize,
    /// The channel.
    #[arg(long, default_value = "presence-gathering")]
    pub(crate) channel: String,
}

#[derive(clap::Args)]
pub(crate) struct Redis {
    /// The address of the Redis.
    #[arg(long, default_value = "127.0.0.1:6379")]
    pub(crate) addr: SocketAddr,
    /// Messages per second.
    #[arg(long, default_value_t = 20, value_parser = between(1, 10_000))]
    pub(crate) rate: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 200, value_parser = between(MIN_SIZE, MAX_SIZE))]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) span: Span,
    /// The channel.
    #[arg(long, default_value = "bench")]
    pub(crate) channel: String,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args)]
pub(crate) struct Disconnect {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many connections to close at once.
    #[arg(long, default_value_t = 10_000, value_parser = between(1, 200_000))]
    pub(crate) subscribers: usize,
    /// The channel they are subscribed to; its number is added if there are several.
    #[arg(long, default_value = "private-leaving")]
    pub(crate) channel: String,
    /// Over how many channels they are spread.
    #[arg(long, default_value_t = 1, value_parser = between(1, 200_000))]
    pub(crate) channels: usize,
    /// Milliseconds between two pings.
    #[arg(long, default_value_t = 5, value_parser = between(1, 1000))]
    pub(crate) interval: usize,
    /// Seconds to measure before the connections are closed, and after.
    #[arg(long, default_value_t = 1, value_parser = between(1, 60))]
    pub(crate) seconds: usize,
}

#[derive(clap::Args)]
pub(crate) struct Drain {
    /// Where a load balancer listens; the process is the server that it sends everything to.
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many connections to hold.
    #[arg(long, default_value_t = 15_000, value_parser = between(1, 200_000))]
    pub(crate) sockets: usize,
    /// The channel they are subscribed to; its number is added if there are several.
    #[arg(long, default_value = "private-drained")]
    pub(crate) channel: String,
    /// Over how many channels they are spread.
    #[arg(long, default_value_t = 1500, value_parser = between(1, 200_000))]
    pub(crate) channels: usize,
    /// Publishes per second, one after the other, all to the first channel.
    #[arg(long, default_value_t = 100, value_parser = between(1, 1000))]
    pub(crate) rate: usize,
    /// Seconds to measure before the server is ended.
    #[arg(long, default_value_t = 10, value_parser = between(1, 600))]
    pub(crate) seconds: usize,
    /// Seconds to keep the connections after it.
    #[arg(long, default_value_t = 2, value_parser = between(0, 60))]
    pub(crate) after: usize,
}

/// What the runs that publish have in common.
#[derive(clap::Args)]
pub(crate) struct Traffic {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Connect anew for every publish, for servers that close the connection
    /// after each answer, as Laravel Reverb does.
    #[arg(long)]
    pub(crate) close: bool,
    /// Give each publish an Idempotency-Key of its own.
    #[arg(long)]
    pub(crate) keys: bool,
    /// Subscribers, all on the one channel if it is one.
    #[arg(long, default_value_t = 1000, value_parser = between(1, 100_000))]
    pub(crate) subscribers: usize,
    /// Connections that publish, each with one request outstanding at most.
    #[arg(long, default_value_t = 4, value_parser = between(1, 4096))]
    pub(crate) publishers: usize,
    /// Bytes of the data string of a message, as decoded.
    #[arg(long, default_value_t = 200, value_parser = between(MIN_SIZE, MAX_EVENT_SIZE))]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) span: Span,
    /// The channel to publish to; its number is added if there are several.
    #[arg(long, default_value = "private-bench")]
    pub(crate) channel: String,
}

/// How long a run takes.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Span {
    /// Seconds to measure.
    #[arg(long, default_value_t = 10, value_parser = between(1, 3600))]
    pub(crate) seconds: usize,
    /// Seconds to work before the measurement begins.
    #[arg(long, default_value_t = 2, value_parser = between(0, 600))]
    pub(crate) warmup: usize,
}

/// The server, and the application to speak for.
#[derive(Clone, clap::Args)]
pub(crate) struct Target {
    /// The server's address; or those of several nodes, with commas, which
    /// subscribers and publishers take in turn.
    #[arg(long, default_value = "127.0.0.1:8080", value_delimiter = ',')]
    pub(crate) addr: Vec<SocketAddr>,
    /// Where to publish, if that is not where the subscribers are.
    #[arg(long, value_delimiter = ',')]
    pub(crate) publish_addr: Vec<SocketAddr>,
    /// The application's id, which publishes name.
    #[arg(long, default_value = "my-app-id")]
    pub(crate) app_id: String,
    /// The application's key.
    #[arg(long, default_value = "my-app-key")]
    pub(crate) key: String,
    /// The application's secret, with which everything is signed.
    #[arg(long, default_value = "my-app-secret")]
    pub(crate) secret: String,
    /// The server's process, whose time and memory are to be measured.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// From how many addresses of 127.0.0.0/24 to connect; each has some
    /// 28,000 ports of its own.
    #[arg(long, default_value_t = 1, value_parser = between(1, 254))]
    pub(crate) sources: usize,
    /// Speak TLS, and trust the certificate of this PEM file.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

fn between(least: usize, most: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least as u64..=most as u64)
}
