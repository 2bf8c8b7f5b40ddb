//! Waiting for what happens a little later on another node.

use std::time::{Duration, Instant};

/// Longer than any time-out of a cluster, on a machine that is busy.
pub(crate) const LONG: Duration = Duration::from_secs(25);

/// How long to wait before the next look.
const GLANCE: Duration = Duration::from_millis(10);

/// Looks until it is so; whether it came to be so in time.
pub(crate) fn soon(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(GLANCE);
    }
}

/// Looks until it is so, which it has to become.
pub(crate) fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    assert!(soon(LONG, is_so), "it did not come to be: {what}");
}

/// Asks until the answer is the expected one, and shows the last one if not.
pub(crate) fn eventually_is<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    mut ask: impl FnMut() -> T,
) {
    let mut last = None;
    let reached = soon(LONG, || {
        let answer = ask();
        let reached = answer == *expected;
        last = Some(answer);
        reached
    });
    assert!(
        reached,
        "{what}: expected {expected:?}, the last answer was {last:?}"
    );
}
