//! The few system calls which the standard library does not wrap: epoll, the
//! limit on open files, a thread's priority, a connect from a chosen source
//! address, and the length of a clock tick.
//!
//! This is the only module of the load generator and of the ceiling that holds
//! `unsafe`. An asynchronous runtime would do the same calls, but its scheduler
//! would then be part of every measurement, and the generator has to be cheaper
//! than the servers it measures. This is not a general epoll library: it knows
//! level-triggered readiness only.

use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// One report of readiness: whose it is, and whether the socket takes more bytes.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) writable: bool,
}

/// The room for one batch of readiness reports.
pub(crate) struct Events {
    list: Vec<libc::epoll_event>,
    filled: usize,
}

impl Events {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            list: vec![libc::epoll_event { events: 0, u64: 0 }; capacity],
            filled: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    pub(crate) fn get(&self, index: usize) -> Ready {
        let event = self.list[index];
        Ready {
            token: event.u64,
            writable: event.events & (libc::EPOLLOUT as u32) != 0,
        }
    }
}

/// A level-triggered epoll instance.
pub(crate) struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes no pointers, and the descriptor it
        // returns belongs to nobody else.
        let fd = unsafe {
            let raw = checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            OwnedFd::from_raw_fd(raw)
        };
        Ok(Self { fd })
    }

    /// Watches a descriptor for readability; closing it ends the watch.
    pub(crate) fn add(&self, target: &impl AsFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, target, token, libc::EPOLLIN)
    }

    /// Ends the watch of a descriptor that stays open.
    pub(crate) fn remove(&self, target: &impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, target, 0, 0)
    }

    /// Watches this instance from inside another one.
    pub(crate) fn nest_in(&self, outer: &Self, token: u64) -> io::Result<()> {
        outer.add(&self.fd, token)
    }

    /// Turns the watch for writability on or off; readability stays watched.
    pub(crate) fn watch_writes(&self, target: &impl AsFd, token: u64, on: bool) -> io::Result<()> {
        let writes = if on { libc::EPOLLOUT } else { 0 };
        self.control(libc::EPOLL_CTL_MOD, target, token, libc::EPOLLIN | writes)
    }

    /// Waits for readiness; a signal that interrupts it counts as nothing ready.
    pub(crate) fn wait(&self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        let millis = timeout.as_micros().div_ceil(1000);
        let millis = libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX);
        let room = libc::c_int::try_from(events.list.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the list outlives the call and holds at least `room` events.
        let outcome = checked(unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), events.list.as_mut_ptr(), room, millis)
        });
        events.filled = match outcome {
            Ok(filled) => filled as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    fn control(
        &self,
        operation: libc::c_int,
        target: &impl AsFd,
        token: u64,
        interest: libc::c_int,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest as u32,
            u64: token,
        };
        let raw = target.as_fd().as_raw_fd();
        // SAFETY: both descriptors are open for as long as they are borrowed,
        // and the kernel copies the event before the call returns.
        checked(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, raw, &raw mut event) })?;
        Ok(())
    }
}

/// Raises the limit on open files to `wanted`: the hard limit too if it must
/// and may, and else as far as the hard limit allows. The limit there is then.
pub(crate) fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit into the place we own.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    let (soft, hard) = (limit.rlim_cur, limit.rlim_max);
    for (soft, hard) in [(wanted, hard.max(wanted)), (hard, hard)] {
        if limit.rlim_cur >= wanted {
            break;
        }
        let higher = libc::rlimit {
            rlim_cur: soft,
            rlim_max: hard,
        };
        // SAFETY: the kernel only reads the rlimit we own.
        if checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const higher) }).is_ok() {
            limit = higher;
            break;
        }
    }
    Ok(limit.rlim_cur.max(soft))
}

/// Lets the calling thread run before all others that have not asked for the same;
/// false if it may not.
pub(crate) fn go_first() -> bool {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel only reads the parameter we own; 0 is the calling thread.
    checked(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) }).is_ok()
}

/// Connects from a chosen source address, which is how one machine gets past
/// the number of ephemeral ports that a single address has.
pub(crate) fn connect_from(
    source: SocketAddrV4,
    target: SocketAddrV4,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes no pointers, and the descriptor it returns belongs
    // to nobody else.
    let stream = unsafe {
        let raw = checked(libc::socket(libc::AF_INET, kind, 0))?;
        TcpStream::from(OwnedFd::from_raw_fd(raw))
    };
    // The timeout for writes bounds the connect as well.
    stream.set_write_timeout(Some(timeout))?;
    let raw = stream.as_raw_fd();
    let (source, target) = (address(source), address(target));
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    let on: libc::c_int = 1;
    let on_length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, each pointer is to a value that lives
    // past its call, and each length is that value's own size.
    unsafe {
        // The port is then chosen at connect, among those free towards this
        // target, and not among those free altogether.
        checked(libc::setsockopt(
            raw,
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            on_length,
        ))?;
        checked(libc::bind(raw, (&raw const source).cast(), length))?;
        checked(libc::connect(raw, (&raw const target).cast(), length))?;
    }
    Ok(stream)
}

/// How many ticks of `/proc/PID/stat` make a second.
pub(crate) fn ticks_per_second() -> u64 {
    // SAFETY: sysconf takes no pointers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100).max(1)
}

fn address(of: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: of.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*of.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

fn checked(outcome: libc::c_int) -> io::Result<libc::c_int> {
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(outcome)
}
