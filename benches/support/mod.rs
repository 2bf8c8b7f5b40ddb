//! What more than one subject needs.

use std::collections::HashMap;

use resound::apps::AppRegistry;
use resound::config::{Config, Sources};

/// One application, its id `1`, its key `key` and its secret `secret`, with the
/// limits that it has when nothing is configured.
pub(crate) fn apps() -> AppRegistry {
    let environment: HashMap<String, String> = [
        ("REVERB_APP_ID", "1"),
        ("REVERB_APP_KEY", "key"),
        ("REVERB_APP_SECRET", "secret"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    let config = Config::load(&sources)
        .expect("an id, a key and a secret are all that an application needs");
    AppRegistry::new(config.apps).expect("there is one")
}
