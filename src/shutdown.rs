//! Signals that stop the server.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::telemetry;

/// Exit status after a second signal: the work that was left was dropped.
const FORCED: i32 = 1;

/// Is done at the first SIGINT or SIGTERM. A second one ends the process at once.
pub fn on_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        tracing::info!(
            signal = name,
            "closing connections; a second signal ends at once"
        );
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::warn!("second signal: ending at once");
            telemetry::flush();
            std::process::exit(FORCED);
        });
    })
}
