//! The log has no secret in it, whatever is logged, and no payload without `--debug`.

use super::{cause_all_lines, start};
use crate::support::SECRET;

fn expect_no_secret(flags: &[&str], settings: &[(&str, &str)]) -> Vec<String> {
    let settings = [settings, &[("RESOUND_ACCESS_LOG", "on")]].concat();
    let (mut server, log) = start(flags, &settings);
    let mut secrets = cause_all_lines(&server);
    log.wait_for(&["unknown application key (4001)"]);
    server.expect_end();
    secrets.extend([SECRET.to_owned(), "auth_signature".to_owned()]);
    let lines = log.lines();
    for (line, secret) in lines
        .iter()
        .flat_map(|line| secrets.iter().map(move |it| (line, it)))
    {
        assert!(!line.contains(secret), "{secret} in {line}");
    }
    lines
}

#[test]
fn with_debug_there_are_payloads_and_no_secrets() {
    for format in ["text", "json"] {
        for levels in ["", "trace"] {
            let lines = expect_no_secret(
                &["--debug", "--log-format", format],
                &[("RUST_LOG", levels)],
            );
            for payload in ["event", "batch", "data", "whisper", "member", "user"] {
                let payload = format!("SENTINEL {payload}");
                let count = lines.iter().filter(|line| line.contains(&payload)).count();
                // Nobody is in the channels of the batch and of the data.
                let is_sent = !payload.ends_with("batch") && !payload.ends_with("data");
                assert_eq!(count > 0, is_sent, "{payload}");
            }
        }
    }
}

#[test]
fn without_debug_there_is_no_payload_at_any_level() {
    for format in ["text", "json"] {
        for levels in ["", "trace", "trace,tungstenite=trace"] {
            let lines = expect_no_secret(&["--log-format", format], &[("RUST_LOG", levels)]);
            for line in lines {
                assert!(!line.contains("SENTINEL"), "{line}");
            }
        }
    }
}
