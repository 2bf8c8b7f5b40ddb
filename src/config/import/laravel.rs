//! A Laravel project's document.

use super::node::Node;
use super::{FORMAT, Imported, Said, reverb, websockets};
use crate::config::ConfigError;
use crate::config::setting::Section;

pub(super) fn read(document: &Node<'_>) -> Result<Imported, ConfigError> {
    let format = document.at("format");
    if format.value.as_u64().is_none_or(|it| it != FORMAT) {
        return Err(format.expected("1, the form that this version understands"));
    }
    let mut imported = Imported::default();
    let (of_reverb, of_websockets) = (document.at("reverb"), document.at("websockets"));
    if !of_reverb.is_nothing() {
        if !of_websockets.is_nothing() {
            imported.notes.push(
                "websockets, the configuration of laravel-websockets, is left out: reverb is there, too"
                    .to_owned(),
            );
        }
        reverb::read(&mut imported, &of_reverb, document)?;
    } else if !of_websockets.is_nothing() {
        websockets::read(&mut imported, &of_websockets, document)?;
    } else {
        return Err(ConfigError::one(
            "the project has no config/reverb.php and no config/websockets.php: \
             expected \"reverb\" or \"websockets\""
                .to_owned(),
        ));
    }
    compare_with_broadcaster(&mut imported, document)?;
    Ok(imported)
}

/// Says where Laravel's broadcaster and the server do not fit together.
fn compare_with_broadcaster(
    imported: &mut Imported,
    document: &Node<'_>,
) -> Result<(), ConfigError> {
    let broadcasting = document.at("broadcasting");
    let Some(name) = broadcasting.at("default").text()? else {
        return Ok(());
    };
    let connection = broadcasting.at(&format!("connections.{name}"));
    let driver = connection.at("driver").text()?;
    if !matches!(driver.as_deref(), Some("reverb" | "pusher")) {
        imported.notes.push(format!(
            "{} is {name:?}, so Laravel does not publish to this server: BROADCAST_CONNECTION=reverb does",
            broadcasting.at("default").path
        ));
        return Ok(());
    }
    let id = connection.at("app_id").text()?.unwrap_or_default();
    let of = |app: &Said, key: &'static str| {
        let said = app.get(&(Section::App, key));
        said.map(|(text, _)| text.clone())
    };
    match imported.apps.iter().find(|app| of(app, "id").as_ref() == Some(&id)) {
        None => imported.notes.push(format!(
            "{} is {id:?}, and the server has no application with this id: what Laravel publishes is refused",
            connection.at("app_id").path
        )),
        Some(app) => {
            let (app, pairs) = (app.clone(), ["key", "secret"]);
            for key in pairs {
                if of(&app, key) != connection.at(key).text()? {
                    imported.notes.push(format!(
                        "{} is not that of the server's application {id:?}: what Laravel publishes is refused",
                        connection.at(key).path
                    ));
                }
            }
        }
    }
    Ok(())
}
