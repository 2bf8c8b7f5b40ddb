//! `resound channels`, `resound users` and `resound terminate`.

use serde_json::{Map, Value, json};

use super::ToolError;
use super::access::Target;
use super::output::{table, visible};
use super::publish::check_channel;
use crate::cli::tools::{Channels, Terminate, Users};
use crate::client::ClientError;
use crate::client::http::{Call, escape};

/// How the names of presence channels begin.
const PRESENCE: &str = "presence-";

/// Returns the occupied channels.
///
/// # Errors
/// If the server does not say.
pub async fn channels(arguments: Channels) -> Result<String, ToolError> {
    let target = Target::of(&arguments.access)?;
    let prefix = arguments.prefix.as_deref().unwrap_or_default();
    let mut channels = match occupied(&target, prefix, "subscription_count").await {
        // Pusher itself does not count subscriptions in lists.
        Err(ToolError::Client(ClientError::Refused { status: 400, .. }, _)) => {
            occupied(&target, prefix, "").await?
        }
        answer => answer?,
    };
    // Users are told only of presence channels alone.
    let presence = if PRESENCE.starts_with(prefix) {
        Some(PRESENCE)
    } else {
        Some(prefix).filter(|prefix| prefix.starts_with(PRESENCE))
    };
    if let Some(presence) = presence {
        for (name, counts) in occupied(&target, presence, "user_count").await? {
            channels.entry(name).or_insert_with(|| json!({}))["user_count"] =
                counts["user_count"].clone();
        }
    }
    if arguments.json {
        return Ok(format!("{:#}\n", json!({ "channels": channels })));
    }
    if channels.is_empty() {
        return Ok("no channel is occupied\n".to_owned());
    }
    let number = |channel: &Value, key: &str| match &channel[key] {
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let mut rows: Vec<Vec<String>> = channels
        .iter()
        .map(|(name, channel)| {
            let subscriptions = number(channel, "subscription_count");
            vec![visible(name), subscriptions, number(channel, "user_count")]
        })
        .collect();
    rows.sort();
    Ok(table(&["CHANNEL", "SUBSCRIPTIONS", "USERS"], &rows))
}

/// The occupied channels whose names begin so, each with what is asked of it.
async fn occupied(
    target: &Target,
    prefix: &str,
    info: &str,
) -> Result<Map<String, Value>, ToolError> {
    let query = [("filter_by_prefix", prefix), ("info", info)];
    let query: Vec<(&str, &str)> = query
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let mut answer = target.call(&get("/channels", &query)).await?;
    // PHP writes an empty object as a list.
    Ok(match answer["channels"].take() {
        Value::Object(channels) => channels,
        _ => Map::new(),
    })
}

/// Returns the users of a presence channel.
///
/// # Errors
/// If the server does not say.
pub async fn users(arguments: Users) -> Result<String, ToolError> {
    let target = Target::of(&arguments.access)?;
    check_channel(&arguments.channel)?;
    let path = format!("/channels/{}/users", escape(&arguments.channel));
    let answer = target.call(&get(&path, &[])).await?;
    if arguments.json {
        return Ok(format!("{answer:#}\n"));
    }
    let users = answer["users"].as_array().map_or(&[][..], Vec::as_slice);
    let lines = users.iter().map(|user| match &user["id"] {
        Value::String(id) => format!("{}\n", visible(id)),
        other => format!("{other}\n"),
    });
    Ok(lines.collect())
}

/// Closes all connections of a user, and returns what was done, for a person.
///
/// # Errors
/// If the server has not taken it.
pub async fn terminate(arguments: Terminate) -> Result<String, ToolError> {
    let target = Target::of(&arguments.access)?;
    if arguments.user.is_empty() {
        return Err(ToolError::Argument("the user has no id".to_owned()));
    }
    let path = format!("/users/{}/terminate_connections", escape(&arguments.user));
    let call = Call {
        method: "POST",
        path: &path,
        query: &[],
        body: "{}",
    };
    target.call(&call).await?;
    Ok(format!(
        "connections of user {} are being closed\n",
        visible(&arguments.user)
    ))
}

fn get<'a>(path: &'a str, query: &'a [(&'a str, &'a str)]) -> Call<'a> {
    Call {
        method: "GET",
        path,
        query,
        body: "",
    }
}
