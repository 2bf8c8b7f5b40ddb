//! `resound apps new`: credentials for another application.

use serde_json::json;

use super::ToolError;
use crate::cli::tools::NewAppFormat;

/// Lower-case letters and digits, so many (reverb:install).
const TOKEN_LENGTH: usize = 20;
const TOKEN_CHARACTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Returns a new application's credentials, as a text.
///
/// # Errors
/// If the system has no random numbers.
pub fn new_app(format: NewAppFormat) -> Result<String, ToolError> {
    // Six digits that do not begin with 0.
    let id = 100_000 + below(900_000)?;
    let (key, secret) = (token()?, token()?);
    Ok(match format {
        NewAppFormat::Env => format!(
            "REVERB_APP_ID={id}\n\
             REVERB_APP_KEY={key}\n\
             REVERB_APP_SECRET={secret}\n\
             REVERB_HOST=\"localhost\"\n\
             REVERB_PORT=8080\n\
             REVERB_SCHEME=http\n\
             \n\
             VITE_REVERB_APP_KEY=\"${{REVERB_APP_KEY}}\"\n\
             VITE_REVERB_HOST=\"${{REVERB_HOST}}\"\n\
             VITE_REVERB_PORT=\"${{REVERB_PORT}}\"\n\
             VITE_REVERB_SCHEME=\"${{REVERB_SCHEME}}\"\n"
        ),
        NewAppFormat::Toml => {
            format!("[[apps]]\nid = \"{id}\"\nkey = \"{key}\"\nsecret = \"{secret}\"\n")
        }
        NewAppFormat::Json => {
            let document = json!({ "id": id.to_string(), "key": key, "secret": secret });
            format!("{document:#}\n")
        }
    })
}

fn token() -> Result<String, ToolError> {
    let count = TOKEN_CHARACTERS.len() as u32;
    let pick = |_| Ok(char::from(TOKEN_CHARACTERS[below(count)? as usize]));
    (0..TOKEN_LENGTH).map(pick).collect()
}

/// A random number below a limit, each as likely as the others.
fn below(limit: u32) -> Result<u32, ToolError> {
    let last_fair = u32::MAX - u32::MAX % limit;
    loop {
        let number = getrandom::u32()
            .map_err(|error| ToolError::System(format!("no random numbers: {error}")))?;
        if number < last_fair {
            return Ok(number % limit);
        }
    }
}
