//! The members of one presence channel, who join it a few at a time.
//!
//! Every member is sent all who come after it, tens of millions of times in
//! all when there are thousands. That is read and counted, and not accounted for
//! one by one.

use crate::Outcome;
use crate::app::App;
use crate::args::Target;
use crate::clock::{Clock, seconds};
use crate::entry;
use crate::roster;
use crate::stream::Route;
use crate::subscriber::Subscriber;
use crate::sys::{Epoll, Events};
use std::time::Duration;

/// How long all members together may take to join.
const SETUP: u64 = seconds(300);
/// Members that join at a time.
const JOINING: usize = 32;
const BATCH: usize = 64;
const BUFFER: usize = 128 * 1024;

pub(crate) struct Crowd {
    pub(crate) members: Vec<Subscriber>,
    /// Their socket ids.
    ids: Vec<String>,
    /// Watches each member by its number.
    pub(crate) arrivals: Epoll,
    /// How often a member was sent another one.
    announced: u64,
    buffer: Vec<u8>,
}

impl Crowd {
    /// Connects members, who do not join yet.
    pub(crate) fn connect(route: &Route, app: &App, members: usize) -> Outcome<Self> {
        let mut crowd = Self {
            members: Vec::with_capacity(members),
            ids: Vec::with_capacity(members),
            arrivals: Epoll::new()?,
            announced: 0,
            buffer: vec![0; BUFFER],
        };
        for number in 0..members {
            let (socket, id) = Subscriber::connect(route, number, app)?;
            crowd.arrivals.add(socket.stream(), number as u64)?;
            crowd.members.push(socket);
            crowd.ids.push(id);
        }
        Ok(crowd)
    }

    /// Members who have all joined and been sent all others.
    pub(crate) fn gather(target: &Target, members: usize, channel: &str) -> Outcome<Self> {
        let app = App::of(target);
        let mut crowd = Self::connect(&Route::of(target)?, &app, members)?;
        let clock = Clock::start();
        crowd.join(&app, channel, clock)?;
        crowd.settle(channel, clock)?;
        Ok(crowd)
    }

    /// Lets every member join, the first as the user 0, the next as the user 1.
    pub(crate) fn join(&mut self, app: &App, channel: &str, clock: Clock) -> Outcome<()> {
        let end = clock.now() + SETUP;
        let (mut begun, mut joined) = (0, 0);
        while joined < self.members.len() {
            while begun < self.members.len() && begun - joined < JOINING {
                let data = roster::member_data(begun as u32);
                let request = entry::subscription(app, &self.ids[begun], channel, Some(&data));
                self.members[begun].send(&request)?;
                begun += 1;
            }
            let now = clock.now();
            if now >= end {
                return Err(format!("only {joined} members could join").into());
            }
            joined += self.listen(channel, clock, end - now)?;
        }
        Ok(())
    }

    /// Reads until every member was sent all who joined after it.
    fn settle(&mut self, channel: &str, clock: Clock) -> Outcome<()> {
        let expected = pairs(self.members.len());
        let end = clock.now() + SETUP;
        while self.announced < expected {
            let now = clock.now();
            if now >= end {
                let announced = self.announced;
                return Err(format!("members were told {announced} of {expected} joinings").into());
            }
            self.listen(channel, clock, end - now)?;
        }
        match self.announced == expected {
            true => Ok(()),
            false => Err("members were told of too many joinings".into()),
        }
    }

    /// Reads once what has come, or what comes first; how many members have got
    /// their answer with that.
    fn listen(&mut self, channel: &str, clock: Clock, patience: u64) -> Outcome<usize> {
        let members = self.members.len();
        let (mut joined, mut announced) = (0, 0);
        let mut events = Events::with_capacity(BATCH);
        self.arrivals
            .wait(&mut events, Duration::from_nanos(patience))?;
        for index in 0..events.len() {
            let number = events.get(index).token as usize;
            let member = self.members.get_mut(number).ok_or("a visitor was told")?;
            member.receive(&mut self.buffer, clock, |text, _| {
                if roster::is_joining_of_one_below(members, text) {
                    announced += 1;
                    return Ok(true);
                }
                let listed = roster::is_list(text, channel)?;
                joined += usize::from(listed);
                Ok(listed)
            })?;
        }
        self.announced += announced;
        Ok(joined)
    }
}

/// How many tellings it takes until everybody knows of everybody who came later.
fn pairs(members: usize) -> u64 {
    let members = members as u64;
    members * members.saturating_sub(1) / 2
}

#[cfg(test)]
mod tests {
    use super::pairs;

    #[test]
    fn each_member_is_sent_those_after_it() {
        assert_eq!([0, 1, 2, 4].map(pairs), [0, 0, 1, 6]);
    }
}
