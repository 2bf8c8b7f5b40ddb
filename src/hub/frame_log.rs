//! What is sent, whole, for `--debug`: a broadcast once, whoever gets it.

use crate::apps::AppHandle;
use crate::protocol::{ChannelName, Frame, SocketId, message};
use crate::telemetry::FRAMES;

/// One connection is sent a frame.
pub fn log_sent(to: SocketId, frame: &Frame) {
    tracing::debug!(target: FRAMES, socket_id = %to, frame = message::text(frame), "sent");
}

/// The subscribers of a channel are sent a frame.
pub(super) fn log_broadcast(
    app: &AppHandle,
    channel: &ChannelName,
    (subscribers, except): (usize, Option<SocketId>),
    frame: &Frame,
) {
    tracing::debug!(
        target: FRAMES,
        app = app.id(),
        %channel,
        subscribers,
        except = except.map(tracing::field::display),
        frame = message::text(frame),
        "broadcast"
    );
}
