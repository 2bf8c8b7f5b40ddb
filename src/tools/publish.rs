//! `resound publish`: an event, as an application's back end publishes it.

use std::io::Read;

use serde_json::json;

use super::ToolError;
use super::access::Target;
use crate::cli::tools::Publish;
use crate::client::http::Call;
use crate::protocol::channel::{ChannelKind, ChannelName};

/// Publishes, and returns what was done, for a person.
///
/// # Errors
/// If an argument cannot be used, or the server has not taken it.
pub async fn publish(arguments: Publish) -> Result<String, ToolError> {
    let target = Target::of(&arguments.access)?;
    let mut channels = vec![arguments.channel];
    channels.extend(arguments.channels);
    for channel in &channels {
        check_channel(channel)?;
    }
    if arguments.event.is_empty() {
        return Err(ToolError::Argument("the event has no name".to_owned()));
    }
    let data = read_data(arguments.data)?;
    let is_encrypted = |channel: &String| ChannelKind::of(channel).is_encrypted();
    if let Some(channel) = channels.iter().find(|channel| is_encrypted(channel))
        && !looks_encrypted(&data)
    {
        return Err(ToolError::Argument(format!(
            "channel {channel:?}: what is published there has to be encrypted, and only the application has the key for \
             that (expected {{\"nonce\":…,\"ciphertext\":…}})"
        )));
    }
    let mut body = json!({ "name": arguments.event, "channels": channels, "data": data });
    if let Some(socket_id) = arguments.except {
        body["socket_id"] = socket_id.into();
    }
    let call = Call {
        method: "POST",
        path: "/events",
        query: &[],
        body: &body.to_string(),
    };
    target.call(&call).await?;
    Ok(format!(
        "{} published to {}\n",
        arguments.event,
        channels.join(", ")
    ))
}

/// Whether it has what encrypted data has (Pusher, "Encrypted channels").
fn looks_encrypted(data: &str) -> bool {
    let data: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    data["nonce"].is_string() && data["ciphertext"].is_string()
}

/// Names can be of any length here: the limit is the server's.
pub(super) fn check_channel(name: &str) -> Result<(), ToolError> {
    match ChannelName::parse(name, usize::MAX) {
        Ok(_) => Ok(()),
        Err(error) => Err(ToolError::Argument(format!("channel {name:?}: {error}"))),
    }
}

/// The text as it was given, if it is JSON.
fn read_data(argument: String) -> Result<String, ToolError> {
    let text = if argument == "-" {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(ToolError::Input)?;
        text.trim_end().to_owned()
    } else {
        argument
    };
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(ToolError::Argument(format!(
            "the event's data is not JSON: {error} (a text needs quotes of its own: '\"text\"')"
        ))),
    }
}
