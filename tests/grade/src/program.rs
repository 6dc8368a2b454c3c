//! A program under examination, and how it is told where to listen.

use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::catalog::{Protocol, Traits};

/// A program under examination.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name in reports.
    pub name: String,
    /// How it is started.
    pub kind: Kind,
    /// What it promises.
    pub traits: Traits,
}

/// How a program is started, and where it says that it listens.
#[derive(Clone, Debug)]
pub enum Kind {
    /// An executable with the book's command line: one address, of which
    /// port 0 picks a free one, and the first line names it.
    Ours(PathBuf),
    /// Any command. `{addr}`, `{host}` and `{port}` in it are replaced, and
    /// the environment has the port as `PORT`.
    Foreign(Vec<String>),
}

impl Program {
    /// The arguments that tell a program of ours where to listen. The address
    /// may be malformed: the program must say so.
    pub fn at<'a>(&self, address: &'a str) -> impl Iterator<Item = &'a str> {
        self.traits.address_flag.into_iter().chain([address])
    }

    /// The command that makes the program listen on `address`, with further
    /// `arguments` for a program of ours.
    #[must_use]
    pub fn command(&self, address: SocketAddr, arguments: &[OsString]) -> Command {
        match &self.kind {
            Kind::Ours(executable) => {
                let mut command = Command::new(executable);
                command.args(arguments).args(self.at(&address.to_string()));
                command
            }
            Kind::Foreign(words) => {
                let mut words = words.iter().map(|word| {
                    word.replace("{addr}", &address.to_string())
                        .replace("{host}", &address.ip().to_string())
                        .replace("{port}", &address.port().to_string())
                });
                let mut command = Command::new(words.next().unwrap_or_default());
                command.args(words).env("PORT", address.port().to_string());
                command
            }
        }
    }
}

impl Program {
    /// The command of a program that is told no address.
    #[must_use]
    pub fn command_without_address(&self, arguments: &[OsString]) -> Command {
        match &self.kind {
            Kind::Ours(executable) => {
                let mut command = Command::new(executable);
                command.args(arguments);
                command
            }
            Kind::Foreign(words) => {
                let mut words = words.iter();
                let mut command = Command::new(words.next().map_or("", String::as_str));
                command.args(words);
                command
            }
        }
    }
}

/// A port of the loopback address for a program that must be told one, set
/// aside until this is dropped.
///
/// Between the choice of a port and the moment when the program binds it,
/// another grader on the same machine could choose the same; its client would
/// then talk to our server. So the port's number is taken in the *other*
/// protocol meanwhile: TCP and UDP have ports of their own.
#[derive(Debug)]
pub struct Lease {
    port: u16,
    _held: Held,
}

#[derive(Debug)]
#[expect(dead_code, reason = "they are held, not used")]
enum Held {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

impl Lease {
    /// A free port for a program that speaks `protocol`.
    ///
    /// It lies below the range from which the kernel takes ports for outgoing
    /// connections (32768 and up on Linux, 49152 elsewhere), so that no client
    /// of another check sits on it before the program does.
    ///
    /// # Errors
    /// When thousands of ports are taken.
    pub fn new(protocol: Protocol) -> io::Result<Lease> {
        const FIRST: u16 = 20_000;
        const PORTS: u64 = 10_000;
        static NEXT: LazyLock<AtomicU64> =
            LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one("start") % PORTS));
        let mut error = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORTS {
            let port = FIRST + (NEXT.fetch_add(1, Ordering::Relaxed) % PORTS) as u16;
            match Held::other_than(protocol, port) {
                Ok(held) => return Ok(Lease { port, _held: held }),
                Err(taken) => error = taken,
            }
        }
        Err(error)
    }

    /// Its number.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Held {
    /// Takes the port in the other protocol, if it is free in both.
    fn other_than(protocol: Protocol, port: u16) -> io::Result<Held> {
        let address = (Ipv4Addr::LOCALHOST, port);
        let udp = UdpSocket::bind(address)?;
        let tcp = TcpListener::bind(address)?;
        Ok(match protocol {
            Protocol::EchoUdp => Held::Tcp(tcp),
            _ => Held::Udp(udp),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    #[test]
    fn the_address_is_put_where_a_foreign_command_wants_it() {
        let program = Program {
            name: "foreign".to_string(),
            kind: Kind::Foreign(
                ["run", "--on={addr}", "{host}", "{port}"]
                    .map(String::from)
                    .into(),
            ),
            traits: catalog::ECHO,
        };
        let command = program.command(SocketAddr::from(([127, 0, 0, 1], 4711)), &[]);
        let words: Vec<_> = command.get_args().collect();
        assert_eq!(words, ["--on=127.0.0.1:4711", "127.0.0.1", "4711"]);
        assert!(
            command.get_envs().any(|(name, value)| {
                name == "PORT" && value.is_some_and(|value| value == "4711")
            })
        );
    }

    #[test]
    fn a_leased_port_is_free_for_the_program_and_for_no_other_lease() {
        let lease = Lease::new(Protocol::Echo).expect("a port");
        let address = (Ipv4Addr::LOCALHOST, lease.port());
        assert!(TcpListener::bind(address).is_ok());
        for protocol in [Protocol::Echo, Protocol::EchoUdp] {
            assert!(Held::other_than(protocol, lease.port()).is_err());
        }
        let lease = Lease::new(Protocol::EchoUdp).expect("a port");
        let address = (Ipv4Addr::LOCALHOST, lease.port());
        assert!(UdpSocket::bind(address).is_ok());
        for protocol in [Protocol::Echo, Protocol::EchoUdp] {
            assert!(Held::other_than(protocol, lease.port()).is_err());
        }
    }
}
