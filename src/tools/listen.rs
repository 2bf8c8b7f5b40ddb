//! `resound listen`: what arrives in channels, for as long as it runs.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::ToolError;
use super::access::Target;
use super::output::visible;
use super::publish::check_channel;
use crate::cli::tools::{Format, Listen};
use crate::client::socket::{Message, Socket, SocketError};

/// The longest wait between two tries to connect.
const MAX_PAUSE: Duration = Duration::from_secs(30);

const EVENT: Style = AnsiColor::Green.on_default().bold();
const CHANNEL: Style = AnsiColor::Cyan.on_default();

/// Joins the channels and prints what arrives, until there have been as many events as were
/// asked for, or nobody reads them any more. Comes back when the connection is lost.
///
/// # Errors
/// If it cannot join at first, the server refuses a channel, or there is no use in coming
/// back.
pub async fn listen(arguments: Listen) -> Result<(), ToolError> {
    let target = Target::of(&arguments.access)?;
    for channel in &arguments.channels {
        check_channel(channel)?;
    }
    let format = arguments.format.unwrap_or_else(|| {
        if io::stdout().is_terminal() {
            Format::Text
        } else {
            Format::Json
        }
    });
    let printer = Printer {
        format,
        left: arguments.count,
    };
    let mut listener = Listener {
        target,
        arguments,
        printer,
        has_joined: false,
        pause: Duration::ZERO,
    };
    loop {
        let lost = match listener.session().await {
            Ok(never) => match never {},
            Err(Ended::Done) => return Ok(()),
            Err(Ended::Error(error)) => return Err(error),
            Err(Ended::Socket(error)) => error,
        };
        let least = lost.retry_after();
        let error = listener.target.socket_error(lost);
        let Some(least) = least.filter(|_| listener.has_joined) else {
            return Err(error);
        };
        let pause = listener.pause.max(least);
        print_status(&format!("{error}; again in {} s", pause.as_secs()));
        sleep(pause).await;
        listener.pause = (pause * 2).clamp(Duration::from_secs(1), MAX_PAUSE);
    }
}

struct Listener {
    target: Target,
    arguments: Listen,
    printer: Printer,
    /// Whether it has been in all channels.
    has_joined: bool,
    /// How long to wait before the next try to connect.
    pause: Duration,
}

/// Why nothing more is heard on a socket.
enum Ended {
    /// There is no need to.
    Done,
    Error(ToolError),
    Socket(SocketError),
}

impl From<SocketError> for Ended {
    fn from(error: SocketError) -> Self {
        Self::Socket(error)
    }
}

impl Listener {
    /// Connects, joins, and prints until something ends it.
    async fn session(&mut self) -> Result<std::convert::Infallible, Ended> {
        let Target {
            endpoint,
            app,
            timeout,
            ..
        } = &self.target;
        let origin = self.arguments.origin.as_deref();
        let mut socket = Socket::connect(endpoint, &app.key, origin, *timeout).await?;
        // Reverb wants to have both.
        let member = json!({ "user_id": self.arguments.user, "user_info": {} }).to_string();
        let mut waited_for: BTreeSet<&str> =
            self.arguments.channels.iter().map(String::as_str).collect();
        for channel in &waited_for {
            socket.subscribe(app, channel, &member).await?;
        }
        loop {
            let message = socket.next().await?;
            let channel = message.channel.as_deref().unwrap_or_default();
            match message.event.as_str() {
                "pusher_internal:subscription_succeeded" => {
                    waited_for.remove(channel);
                    if let Some(ids) = message.data["presence"]["ids"].as_array() {
                        print_members(channel, ids);
                    }
                    if waited_for.is_empty() {
                        self.has_joined = true;
                        self.pause = Duration::ZERO;
                        print_status(&format!("listening as socket {}", visible(&socket.id)));
                    }
                }
                // It does not say for which channel; they are answered in turn.
                "pusher:error" | "pusher:subscription_error" if !waited_for.is_empty() => {
                    let channels: Vec<&str> = waited_for.into_iter().collect();
                    return Err(Ended::Error(ToolError::Subscription {
                        channel: if channel.is_empty() {
                            channels.join(", ")
                        } else {
                            visible(channel)
                        },
                        reason: visible(&reason_of(&message.data)),
                    }));
                }
                "pusher:error" => print_status(&visible(&reason_of(&message.data))),
                _ => self.printer.print(&message)?,
            }
        }
    }
}

/// What a server says of an error, whatever form it is in.
fn reason_of(data: &Value) -> String {
    let text = ["message", "error"]
        .iter()
        .find_map(|key| data[key].as_str());
    match (text, data["code"].as_u64()) {
        (Some(text), Some(code)) => format!("{text} ({code})"),
        (Some(text), None) => text.to_owned(),
        (None, _) => data.to_string(),
    }
}

fn print_members(channel: &str, ids: &[Value]) {
    let names: Vec<String> = ids
        .iter()
        .map(|id| match id {
            Value::String(id) => visible(id),
            other => other.to_string(),
        })
        .collect();
    print_status(&format!(
        "{} members: {}",
        visible(channel),
        names.join(", ")
    ));
}

struct Printer {
    format: Format,
    /// Events until the end, if there is one.
    left: Option<u64>,
}

impl Printer {
    fn print(&mut self, message: &Message) -> Result<(), Ended> {
        let text = match self.format {
            Format::Text => as_text(message),
            Format::Json => as_json(message),
        };
        // It leaves colours away where nobody sees them.
        let mut out = anstream::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(|error| match error.kind() {
            // Whoever has read it, such as head, has had enough.
            io::ErrorKind::BrokenPipe => Ended::Done,
            _ => Ended::Error(ToolError::Output(error)),
        })?;
        if let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                return Err(Ended::Done);
            }
        }
        Ok(())
    }
}

fn as_text(message: &Message) -> String {
    let event = visible(&message.event);
    let mut text = format!("{EVENT}{event}{EVENT:#}");
    if let Some(channel) = &message.channel {
        text.push_str(&format!(" {CHANNEL}{}{CHANNEL:#}", visible(channel)));
    }
    if let Some(user_id) = &message.user_id {
        text.push_str(&format!(" from {}", visible(user_id)));
    }
    text.push('\n');
    match &message.data {
        Value::Null => {}
        Value::String(data) => text.push_str(&format!("  {}\n", visible(data))),
        data => {
            for line in format!("{data:#}").lines() {
                text.push_str(&format!("  {}\n", visible(line)));
            }
        }
    }
    text
}

fn as_json(message: &Message) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut line = json!({
        "time_ms": since.map_or(0, |since| since.as_millis() as u64),
        "channel": message.channel,
        "event": message.event,
        "data": message.data,
    });
    if let Some(user_id) = &message.user_id {
        line["user_id"] = user_id.as_str().into();
    }
    format!("{line}\n")
}

/// For a person, beside what is printed for whoever reads the events.
fn print_status(text: &str) {
    // Nothing can be done about a terminal that is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persons_view_names_event_channel_and_sender() {
        let message = Message {
            event: "client-typing".to_owned(),
            channel: Some("presence-room".to_owned()),
            data: json!({ "on": true }),
            user_id: Some("7".to_owned()),
        };
        let plain = anstream::adapter::strip_str(&as_text(&message)).to_string();
        assert_eq!(
            plain,
            "client-typing presence-room from 7\n  {\n    \"on\": true\n  }\n"
        );
    }
}
