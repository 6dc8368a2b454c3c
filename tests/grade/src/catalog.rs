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
}

/// What a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP, and everything comes back.
    Echo,
    /// UDP, and every datagram comes back.
    EchoUdp,
    /// HTTP/1.1.
    Http,
    /// It connects to a server instead of being one.
    Client,
    /// It waits for signals and has no socket.
    Signals,
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
    /// A process for each client, or for each worker.
    Fork,
}

impl Traits {
    /// A TCP server, of whatever protocol.
    #[must_use]
    pub fn is_tcp_server(&self) -> bool {
        matches!(self.protocol, Protocol::Echo | Protocol::Http)
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

    /// A TCP echo server with at least `number` clients at once.
    #[must_use]
    pub fn echoes_to(&self, number: usize) -> bool {
        self.is_echo()
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
};

const FORK: Traits = Traits {
    greeting: true,
    clients: Clients::Limit(2),
    model: Model::Fork,
    ..ECHO
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

const SIGNALS: Traits = Traits {
    protocol: Protocol::Signals,
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
    chapter("ch04-fork", "shared-listener", "parent and child accept on one socket", FORK),
    chapter("ch04-fork", "fork-per-client", "a child per client, without a limit",
        Traits { clients: Clients::Many(1_000), ..FORK }),
    chapter("ch04-fork", "worker-pool", "MAX_PROCS prefork workers", FORK),
    chapter("ch05-signals", "ch05-signals", "waits for signals without polling", SIGNALS),
    chapter("ch05-signals", "signal-explorer", "says which signals arrive", SIGNALS),
    chapter("ch05-signals", "signal-waits", "four ways to wait for a signal", SIGNALS),
    chapter("ch05-signals", "self-pipe-fork", "the fork server, woken by SIGCHLD", FORK),
    chapter("ch05-signals", "graceful-echo", "the reactor, which drains on SIGTERM",
        Traits { clients: Clients::Many(1_000), ..REACTOR }),
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
    ]),
    specimen("ch01-echo", "socket-timeout", "B3", ECHO, &[
        "an idle client stays connected",
        "a client that stops reading for a while still gets every byte",
    ]),
    specimen("ch01-echo", "any-port", "B5", ECHO, &[
        "a malformed address is refused with a reason",
    ]),
    specimen("ch01-echo", "late-check", "B16", ECHO, &[
        "a taken port is refused with a reason",
        "a privileged port without permission is refused with a reason",
    ]),
    specimen("ch02-select", "busy-polling", "B7", SELECT, &[
        "out of descriptors, the server neither spins nor dies, and recovers",
        "with no client the server sleeps",
        "with ten silent clients the server sleeps",
        "with 1,000 silent clients the server sleeps",
    ]),
    specimen("ch02-select", "drop-at-end", "B8", POLL, &[
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
