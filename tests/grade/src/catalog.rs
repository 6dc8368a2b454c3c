//! The programs of the chapters, and the specimens, with what each promises.
//!
//! A check decides by these traits whether it applies. A program that is not
//! listed here is not graded; a specimen that is not listed is not tested.

/// What a program promises.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// What it speaks.
    pub protocol: Protocol,
    /// It greets with `You are connected to process PID`.
    pub greeting: bool,
    /// How many clients it serves at once.
    pub clients: Clients,
    /// How it does that.
    pub model: Model,
    /// The flag before the address on its command line; without one, the
    /// address stands alone.
    pub address_flag: Option<&'static str>,
    /// What it does when SIGTERM or SIGINT asks it to end.
    pub shutdown: Shutdown,
}

/// What a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP, and everything comes back.
    Echo,
    /// UDP, and every datagram comes back.
    EchoUdp,
    /// HTTP/1.1: a page, or the files of a directory, on connections that
    /// stay open, and a limit to a client's time.
    Http,
    /// HTTP/1.1: one page, whatever the target. It may close the connection
    /// after an answer that says so.
    Page,
    /// It connects to a server instead of being one.
    Client,
    /// It has no socket: it waits for a signal, cleans up, and ends.
    SignalCleanup,
    /// It has no socket: it explains signals, and tells of all that arrive.
    SignalExplorer,
    /// It has no socket: it waits for signals in one of several ways, which
    /// its first argument names.
    SignalWaits,
    /// It shows something, and ends by itself.
    Demonstration,
}

/// How many clients a program serves at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// One; the next one waits until it has left.
    One,
    /// As many as there are processes, and the next one waits.
    Limit(usize),
    /// A crowd, up to this number at least.
    Many(usize),
}

/// How a program serves its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// One call after the other, each of which may block.
    Blocking,
    /// select(2), with its limit of descriptor 1023.
    Select,
    /// poll(2).
    Poll,
    /// A thread for each client.
    Threads,
    /// An event loop on epoll(7) or kqueue(2).
    Reactor,
    /// A process for each client.
    ForkPerClient,
    /// Processes that are there before the first client comes, and that the
    /// parent, who serves nobody, replaces when they die.
    Prefork,
    /// A parent and one child, which both accept on the same listener.
    SharedListener,
}

/// What a server does when SIGTERM or SIGINT asks it to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// It does not catch them: the kernel ends it, whatever it is doing.
    Abrupt,
    /// Its client may finish; then it ends with status 0.
    Finishing,
    /// Its clients may finish, until a deadline. It also re-reads its settings
    /// on SIGHUP, and tells its counters on SIGUSR1.
    Draining,
}

impl Traits {
    /// A TCP server, of whatever protocol.
    #[must_use]
    pub fn is_tcp_server(&self) -> bool {
        self.is_echo() || self.is_http()
    }

    /// A server that is told its address, of whatever protocol.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.is_tcp_server() || self.protocol == Protocol::EchoUdp
    }

    /// A TCP echo server.
    #[must_use]
    pub fn is_echo(&self) -> bool {
        self.protocol == Protocol::Echo
    }

    /// An HTTP server, of a page or of files.
    #[must_use]
    pub fn is_http(&self) -> bool {
        matches!(self.protocol, Protocol::Http | Protocol::Page)
    }

    /// An HTTP server of the files of a directory, with a limit to a client's
    /// time.
    #[must_use]
    pub fn serves_files(&self) -> bool {
        self.protocol == Protocol::Http
    }

    /// A server of several processes, which all greet.
    #[must_use]
    pub fn forks(&self) -> bool {
        matches!(
            self.model,
            Model::ForkPerClient | Model::Prefork | Model::SharedListener
        )
    }

    /// A server whose parent starts processes while it serves.
    #[must_use]
    pub fn keeps_forking(&self) -> bool {
        matches!(self.model, Model::ForkPerClient | Model::Prefork)
    }

    /// A server whose limit is set by `--max-procs`.
    #[must_use]
    pub fn takes_max_procs(&self) -> bool {
        self.keeps_forking() && matches!(self.clients, Clients::Limit(_))
    }

    /// A program that is told an address, to listen or to connect to it.
    #[must_use]
    pub fn takes_address(&self) -> bool {
        self.is_server() || self.protocol == Protocol::Client
    }

    /// A program that waits for signals, and for nothing else.
    #[must_use]
    pub fn awaits_signals(&self) -> bool {
        matches!(
            self.protocol,
            Protocol::SignalCleanup | Protocol::SignalExplorer | Protocol::SignalWaits
        )
    }

    /// A TCP echo server with at least `number` clients at once.
    #[must_use]
    pub fn echoes_to(&self, number: usize) -> bool {
        self.is_echo() && self.serves(number)
    }

    /// A TCP server, of whatever protocol, with at least `number` clients at
    /// once.
    #[must_use]
    pub fn serves(&self, number: usize) -> bool {
        self.is_tcp_server()
            && match self.clients {
                Clients::One => number <= 1,
                Clients::Limit(limit) => number <= limit,
                Clients::Many(most) => number <= most,
            }
    }
}

/// A blocking TCP echo server for one client at a time; other traits are
/// written as what differs from it.
pub const ECHO: Traits = Traits {
    protocol: Protocol::Echo,
    greeting: false,
    clients: Clients::One,
    model: Model::Blocking,
    address_flag: None,
    shutdown: Shutdown::Abrupt,
};

const FORK: Traits = Traits {
    greeting: true,
    clients: Clients::Limit(2),
    model: Model::ForkPerClient,
    ..ECHO
};

/// A specimen with a process for each client; its fault needs no crowd.
const PER_CLIENT: Traits = Traits {
    clients: Clients::Many(100),
    ..FORK
};

const SELECT: Traits = Traits {
    clients: Clients::Many(1_000),
    model: Model::Select,
    ..ECHO
};

const POLL: Traits = Traits {
    model: Model::Poll,
    ..SELECT
};

const REACTOR: Traits = Traits {
    clients: Clients::Many(10_000),
    model: Model::Reactor,
    ..ECHO
};

/// The handbook's own HTTP server: one page, and a connection for each request.
const PAGE: Traits = Traits {
    protocol: Protocol::Page,
    address_flag: Some("--listen"),
    ..REACTOR
};

const CLEANUP: Traits = Traits {
    protocol: Protocol::SignalCleanup,
    ..ECHO
};

/// A binary of a chapter.
#[derive(Clone, Copy, Debug)]
pub struct Chapter {
    /// The package, named like the binary when it is the main one.
    pub package: &'static str,
    /// The binary.
    pub binary: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// What it promises.
    pub traits: Traits,
}

impl Chapter {
    /// The short name of the chapter: `ch02` for the package `ch02-select`.
    #[must_use]
    pub fn short(&self) -> &'static str {
        let end = self.package.find('-').unwrap_or(self.package.len());
        &self.package[..end]
    }

    /// Whether it is what `cargo run -p` of its package runs.
    #[must_use]
    pub fn is_main(&self) -> bool {
        self.package == self.binary
    }
}

const fn chapter(
    package: &'static str,
    binary: &'static str,
    about: &'static str,
    traits: Traits,
) -> Chapter {
    Chapter {
        package,
        binary,
        about,
        traits,
    }
}

/// Every binary of every chapter, the main one of each first.
#[rustfmt::skip]
pub const CHAPTERS: &[Chapter] = &[
    chapter("ch01-echo", "ch01-echo", "blocking TCP echo, one client at a time", ECHO),
    chapter("ch01-echo", "echo-copy", "the same with std::io::copy", ECHO),
    chapter("ch01-echo", "echo-udp", "UDP echo",
        Traits { protocol: Protocol::EchoUdp, ..ECHO }),
    chapter("ch01-echo", "echo-client", "a client for every chapter",
        Traits { protocol: Protocol::Client, ..ECHO }),
    chapter("ch02-select", "ch02-select", "many clients in one process with select(2)", SELECT),
    chapter("ch02-select", "echo-poll", "the same with poll(2)",
        Traits { clients: Clients::Many(10_000), model: Model::Poll, ..ECHO }),
    chapter("ch02-select", "echo-threads", "a thread per client",
        Traits { clients: Clients::Many(1_000), model: Model::Threads, ..ECHO }),
    chapter("ch03-reactor", "ch03-reactor", "echo on the reactor", REACTOR),
    chapter("ch03-reactor", "reactor-http", "HTTP/1.1 on the reactor",
        Traits { protocol: Protocol::Http, address_flag: Some("--listen"), ..REACTOR }),
    chapter("ch04-fork", "ch04-fork", "at most MAX_PROCS children, one per client", FORK),
    chapter("ch04-fork", "fork-basics", "fork, and wait for the child",
        Traits { protocol: Protocol::Demonstration, ..ECHO }),
    chapter("ch04-fork", "shared-listener", "parent and child accept on one socket",
        Traits { model: Model::SharedListener, ..FORK }),
    chapter("ch04-fork", "fork-per-client", "a child per client, without a limit",
        Traits { clients: Clients::Many(1_000), ..FORK }),
    chapter("ch04-fork", "worker-pool", "MAX_PROCS prefork workers",
        Traits { model: Model::Prefork, ..FORK }),
    chapter("ch05-signals", "ch05-signals", "waits for signals without polling", CLEANUP),
    chapter("ch05-signals", "signal-explorer", "says which signals arrive",
        Traits { protocol: Protocol::SignalExplorer, ..ECHO }),
    chapter("ch05-signals", "signal-waits", "four ways to wait for a signal",
        Traits { protocol: Protocol::SignalWaits, ..ECHO }),
    chapter("ch05-signals", "self-pipe-fork", "the fork server, woken by SIGCHLD", FORK),
    chapter("ch05-signals", "graceful-echo", "the reactor, which drains on SIGTERM",
        Traits { shutdown: Shutdown::Draining, ..REACTOR }),
];

/// A server that is wrong on purpose: an example of a chapter.
#[derive(Clone, Copy, Debug)]
pub struct Specimen {
    /// The package.
    pub package: &'static str,
    /// The example: `cargo run -p PACKAGE --example NAME`.
    pub example: &'static str,
    /// The fault of the original programs that it keeps alive: `B1`.
    pub fault: &'static str,
    /// What it promises, and does not keep.
    pub traits: Traits,
    /// The exact names of the checks that reject it, all of them.
    pub rejected_by: &'static [&'static str],
}

const fn specimen(
    package: &'static str,
    example: &'static str,
    fault: &'static str,
    traits: Traits,
    rejected_by: &'static [&'static str],
) -> Specimen {
    Specimen {
        package,
        example,
        fault,
        traits,
        rejected_by,
    }
}

/// Every specimen.
#[rustfmt::skip]
pub const SPECIMENS: &[Specimen] = &[
    specimen("ch01-echo", "lone-zero", "B1", ECHO, &["a lone \"0\" is data"]),
    specimen("ch01-echo", "waits-for-more", "B2", ECHO, &[
        "messages of 4095, 4096, 4097, 5000 and 8191 bytes come back at once",
        "16 MiB come back exactly while the client writes and reads at once",
        "a client that sends and never reads is held, and then gets every byte",
    ]),
    specimen("ch01-echo", "socket-timeout", "B3", ECHO, &[
        "an idle client stays connected",
        "a client that stops reading for a while still gets every byte",
        "a client that sends and never reads is held, and then gets every byte",
        "out of descriptors, the server neither spins nor dies, and recovers",
        "with ten silent clients the server sleeps",
    ]),
    specimen("ch01-echo", "any-port", "B5", ECHO, &[
        "a malformed address is refused with a reason",
    ]),
    specimen("ch01-echo", "late-check", "B16", ECHO, &[
        "a taken port is refused with a reason",
        "a privileged port without permission is refused with a reason",
    ]),
    specimen("ch02-select", "busy-polling", "B7", SELECT, &[
        "a server that is exactly full sleeps",
        "a client that half-closes and leaves with bytes pending is let go",
        "out of descriptors, the server neither spins nor dies, and recovers",
        "with no client the server sleeps",
        "with ten silent clients the server sleeps",
        "with 1,000 silent clients the server sleeps",
    ]),
    specimen("ch02-select", "drop-at-end", "B8", POLL, &[
        "a half-close after 4 MiB is answered in full, then the end",
        "a client that stops reading for a while still gets every byte",
        "a half-close while bytes wait to be written is answered in full, then the end",
    ]),
    specimen("ch02-select", "overwrites-unsent", "B9", POLL, &[
        "16 MiB come back exactly while the client writes and reads at once",
        "64 KiB written in full before the first read come back",
        "a half-close after 64 KiB is answered in full, then the end",
        "a half-close after 4 MiB is answered in full, then the end",
        "a half-close while bytes wait to be written is answered in full, then the end",
        "a client that stops reading for a while still gets every byte",
        "a client that sends and never reads is held, and then gets every byte",
    ]),
    specimen("ch02-select", "no-fd-limit", "B11", SELECT, &[
        "past descriptor 1023 newcomers are closed, and all others served",
    ]),
    specimen("ch02-select", "keeps-buffers", "B12", POLL, &[
        "a client that half-closes and leaves with bytes pending is let go",
        "a reset in the middle of a reply disturbs nobody",
        "a disconnect with data pending disturbs nobody",
        "memory does not grow with clients that left",
        "the next client gets only its own bytes",
    ]),
    specimen("ch02-select", "keeps-memory", "B12", POLL, &[
        "memory does not grow with clients that left",
    ]),
    specimen("ch02-select", "no-high-water", "B17", POLL, &[
        "a client that sends and never reads is held, and then gets every byte",
    ]),
    specimen("ch02-select", "spins-when-full", "B18", SELECT, &[
        "out of descriptors, the server neither spins nor dies, and recovers",
    ]),
    specimen("ch03-reactor", "stale-event", "B10", REACTOR, &[
        "a client that half-closes and leaves with bytes pending is let go",
        "a reset in the middle of a reply disturbs nobody",
        "a disconnect with data pending disturbs nobody",
        "descriptors return when clients leave",
        "memory does not grow with clients that left",
        "the next client gets only its own bytes",
    ]),
    specimen("ch03-reactor", "listener-ends", "B13", Traits { clients: Clients::Many(100), ..REACTOR }, &[
        "a client that half-closes and leaves with bytes pending is let go",
        "the server outlives the reader of its output",
        "20 clients are served one after another",
        "a half-close after 64 KiB is answered in full, then the end",
        "a half-close after 4 MiB is answered in full, then the end",
        "a half-close while bytes wait to be written is answered in full, then the end",
        "a reset right after connecting disturbs nobody",
        "a reset after sending disturbs nobody",
        "a reset in the middle of a reply disturbs nobody",
        "a disconnect with data pending disturbs nobody",
        "a disconnect right after sending disturbs nobody",
        "out of descriptors, the server neither spins nor dies, and recovers",
        "descriptors return when clients leave",
        "memory does not grow with clients that left",
        "the next client gets only its own bytes",
        "the listener outlives the last client",
    ]),
    specimen("ch03-reactor", "answers-early", "B19", PAGE, &[
        "nothing is answered before the request is whole",
        "a request split at any byte is answered once",
        "a request that comes byte by byte is answered once",
        "Connection: close is answered, then the connection ends in order",
        "HTTP/1.0 is answered, then the connection ends in order",
        "a half-close after a request is answered in full, then the end",
        "HEAD has the headers of GET and no body",
        "POST, PUT and DELETE are refused with 405 and Allow",
        "the body of a refused request harms nothing",
        "what is not HTTP gets 400, then the connection ends in order",
        "a head beyond the limit is refused with 431 or 400",
    ]),
    // Every check that waits for the end of the last client's stream.
    specimen("ch04-fork", "parent-keeps-socket", "B4", PER_CLIENT, &[
        "a client that half-closes and leaves with bytes pending is let go",
        "the server outlives the reader of its output",
        "20 clients are served one after another",
        "a half-close after 64 KiB is answered in full, then the end",
        "a half-close after 4 MiB is answered in full, then the end",
        "a half-close while bytes wait to be written is answered in full, then the end",
        "a reset right after connecting disturbs nobody",
        "a reset after sending disturbs nobody",
        "a reset in the middle of a reply disturbs nobody",
        "a disconnect with data pending disturbs nobody",
        "a disconnect right after sending disturbs nobody",
        "a client that stops reading for a while still gets every byte",
        "a client that sends and never reads is held, and then gets every byte",
        "out of descriptors, the server neither spins nor dies, and recovers",
        "descriptors return when clients leave",
        "memory does not grow with clients that left",
        "the next client gets only its own bytes",
        "the listener outlives the last client",
        "a child killed by any signal frees its place",
        "a stopped child harms nobody else",
        "a client that leaves sees its end at once, though others stay",
        "no process holds a socket that is another one's business",
        "when SIGTERM ends the parent, no child and no listener stays",
        "when SIGINT ends the parent, no child and no listener stays",
        "when SIGKILL ends the parent, no child and no listener stays",
        "when fork fails, the server says why, serves on and recovers",
    ]),
    specimen("ch04-fork", "child-keeps-listener", "B4", PER_CLIENT, &[
        "no process holds a socket that is another one's business",
        "when SIGTERM ends the parent, no child and no listener stays",
        "when SIGINT ends the parent, no child and no listener stays",
        "when SIGKILL ends the parent, no child and no listener stays",
    ]),
    // Its zombies count against the limit of processes, so that fork goes on failing.
    specimen("ch04-fork", "never-reaps", "B6", PER_CLIENT, &[
        "50 clients leave no zombie",
        "when fork fails, the server says why, serves on and recovers",
    ]),
    specimen("ch04-fork", "counts-exited-only", "B6", FORK, &[
        "a child killed by any signal frees its place",
    ]),
    specimen("ch04-fork", "ignores-fork-failure", "B14", FORK, &[
        "when fork fails, the server says why, serves on and recovers",
    ]),
    specimen("ch05-signals", "polls-for-signals", "B7", CLEANUP, &[
        "until a signal comes the program sleeps",
    ]),
    specimen("ch05-signals", "flag-and-accept", "EINTR",
        Traits { shutdown: Shutdown::Finishing, ..ECHO }, &[
        "with nobody connected, SIGTERM and SIGINT end the server at once with status 0",
    ]),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::checks;

    #[test]
    fn every_chapter_has_one_main_binary_and_names_are_unique() {
        let packages: HashSet<_> = CHAPTERS.iter().map(|chapter| chapter.package).collect();
        for package in &packages {
            let mains = CHAPTERS
                .iter()
                .filter(|chapter| chapter.package == *package);
            assert_eq!(
                mains.filter(|chapter| chapter.is_main()).count(),
                1,
                "{package}"
            );
        }
        let names: HashSet<_> = CHAPTERS.iter().map(|chapter| chapter.binary).collect();
        assert_eq!(names.len(), CHAPTERS.len());
    }

    #[test]
    fn a_specimen_names_checks_that_exist_and_apply() {
        for specimen in SPECIMENS {
            assert!(!specimen.rejected_by.is_empty(), "{}", specimen.example);
            for name in specimen.rejected_by {
                let check = checks::all().find(|check| check.name == *name);
                let applies = check.is_some_and(|check| (check.applies)(&specimen.traits));
                assert!(applies, "{}: {name}", specimen.example);
            }
        }
    }
}
