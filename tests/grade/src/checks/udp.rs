//! UDP: each datagram is answered on its own, and nothing ends.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use crate::bytes::{count, pattern, size};
use crate::catalog::{Protocol, Traits};
use crate::check::{Case, Check, During, Failure, ORDINARY, Result, Stop};
use crate::checks::idle::sleeps;
use crate::datagram::{LARGEST, Sender};
use crate::proc;
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "datagrams of 1 to 8,192 bytes come back to their sender",
        cause: "a buffer is smaller than the datagram, and the kernel drops what does not fit; \
                or the server receives and never answers",
        section: "ch01-echo/udp.md#udp",
        descriptors: ORDINARY,
        applies: is_udp,
        run: |case| {
            come_back(
                case,
                &[b"x", pattern(1, 512), pattern(2, 1_472), pattern(3, 8_192)],
            )
        },
    },
    Check {
        name: "a datagram of 65,507 bytes comes back",
        cause: "a buffer is smaller than the largest datagram, and the kernel drops what does \
                not fit",
        section: "ch01-echo/udp.md#udp-truncation",
        descriptors: ORDINARY,
        applies: is_udp,
        run: |case| come_back(case, &[pattern(0, LARGEST)]),
    },
    Check {
        name: "a datagram \"0\" is data",
        cause: "a string that counts as false is taken for no datagram",
        section: "ch01-echo/udp.md#udp",
        descriptors: ORDINARY,
        applies: is_udp,
        run: |case| come_back(case, &[b"0", b"0\n", b"00", b"0"]),
    },
    Check {
        name: "every byte value comes back in a datagram",
        cause: "bytes pass through a text type, or a NUL or newline is special",
        section: "ch01-echo/bytes.md#bytes-not-messages",
        descriptors: ORDINARY,
        applies: is_udp,
        run: every_byte_value,
    },
    Check {
        name: "an empty datagram is answered by an empty one and ends nothing",
        cause: "a datagram of 0 bytes is taken for the end of a stream, which UDP has not",
        section: "ch01-echo/udp.md#udp-empty",
        descriptors: ORDINARY,
        applies: is_udp,
        run: |case| come_back(case, &[b"before", b"", b"after", b"", b""]),
    },
    Check {
        name: "two datagrams get two answers",
        cause: "datagrams are joined or split, as if they were a stream",
        section: "ch01-echo/udp.md#udp",
        descriptors: ORDINARY,
        applies: is_udp,
        run: boundaries,
    },
    Check {
        name: "ten senders each get their own datagrams",
        cause: "answers go to the first sender, or to the last one, whoever asked",
        section: "ch01-echo/udp.md#udp",
        descriptors: ORDINARY,
        applies: is_udp,
        run: ten_senders,
    },
    Check {
        name: "a sender that is gone disturbs nobody",
        cause: "the system's word that an answer found nobody (ICMP) ends the server, as an \
                error of the next call",
        section: "ch01-echo/udp.md#udp-errors",
        descriptors: ORDINARY,
        applies: is_udp,
        run: senders_gone,
    },
    Check {
        name: "a datagram that cannot be answered disturbs nobody",
        cause: "the error of sendto ends the server: a sender may write port 0 as its own",
        section: "ch01-echo/udp.md#udp-errors",
        descriptors: ORDINARY,
        applies: is_udp,
        run: port_zero,
    },
    Check {
        name: "a datagram forged in the server's own name starts no loop",
        cause: "the server answers itself, for ever: it does not compare the sender with its \
                own address",
        section: "ch01-echo/udp.md#udp-spoofing",
        descriptors: ORDINARY,
        applies: is_udp,
        run: forged,
    },
    Check {
        name: "no datagram is answered by more bytes than it had",
        cause: "an answer is longer than its question, or there are two: sent to a forged \
                sender, that is an attack, and the server multiplies it",
        section: "ch01-echo/udp.md#udp-spoofing",
        descriptors: ORDINARY,
        applies: is_udp,
        run: no_amplification,
    },
];

fn is_udp(traits: &Traits) -> bool {
    traits.protocol == Protocol::EchoUdp
}

fn sender(case: &Case, server: &Server) -> Result<Sender> {
    Sender::to(server.address(), case.deadline)
}

fn come_back(case: &Case, datagrams: &[&[u8]]) -> Result {
    case.serve(|server| {
        let sender = sender(case, server)?;
        for datagram in datagrams {
            sender.exchange(datagram)?;
        }
        Ok(())
    })
}

fn every_byte_value(case: &Case) -> Result {
    let values: Vec<u8> = (0..=255).collect();
    // A lone "0" has a check of its own.
    let alone = values.chunks(1).filter(|value| *value != b"0");
    let all: Vec<&[u8]> = alone.chain([&values[..]]).collect();
    come_back(case, &all)
}

fn boundaries(case: &Case) -> Result {
    case.serve(|server| {
        let sender = sender(case, server)?;
        for _ in 0..20 {
            // On loopback their order stays, too.
            sender.send(b"one")?;
            sender.send(b"another")?;
            sender.expect(b"one")?;
            sender.expect(b"another")?;
        }
        Ok(())
    })
}

fn ten_senders(case: &Case) -> Result {
    case.serve(|server| {
        let senders = (0..10).map(|_| sender(case, server));
        let senders = senders.collect::<Result<Vec<_>>>()?;
        for round in 1..=3 {
            let words = |number: usize| format!("sender {number}, round {round}");
            for (number, sender) in senders.iter().enumerate() {
                sender.send(words(number).as_bytes())?;
            }
            for (number, sender) in senders.iter().enumerate() {
                sender.expect(words(number).as_bytes())?;
            }
        }
        Ok(())
    })
}

fn senders_gone(case: &Case) -> Result {
    case.serve(|server| {
        let bystander = sender(case, server)?;
        for _ in 0..50 {
            sender(case, server)?.send(b"do not wait for me")?;
            bystander.exchange(b"still here")?;
        }
        case.visit(server)
    })
}

fn port_zero(case: &Case) -> Result {
    case.serve(|server| {
        let nobody = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        for _ in 0..5 {
            forge(nobody, server)?;
            case.visit(server)?;
        }
        Ok(())
    })
}

fn forged(case: &Case) -> Result {
    proc::available()?;
    case.serve(|server| {
        let SocketAddr::V4(own) = server.address() else {
            return Err(Stop::skipped("only an address of IPv4 is forged here"));
        };
        forge(own, server)?;
        case.visit(server)?;
        sleeps(server, 1)
    })
}

/// Sends the server a datagram in the name of `from`.
fn forge(from: SocketAddrV4, server: &Server) -> Result {
    let SocketAddr::V4(to) = server.address() else {
        return Err(Stop::skipped("only an address of IPv4 is forged here"));
    };
    match send_raw(&packet(from, to, b"an echo of yourself"), to) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Stop::skipped(
            "to forge a sender takes a raw socket, and a raw socket takes root",
        )),
        Err(error) => Err(error).during("sending a forged datagram"),
    }
}

/// Sends a packet whose headers are written by the sender: on Linux that is
/// what IPPROTO_RAW stands for, raw(7).
#[cfg(target_os = "linux")]
fn send_raw(packet: &[u8], to: SocketAddrV4) -> io::Result<usize> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    let flags = SockFlag::SOCK_CLOEXEC;
    let raw = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw)?;
    socket2::Socket::from(raw).send_to(packet, &to.into())
}

/// Elsewhere the headers are asked for otherwise, and written otherwise.
#[cfg(not(target_os = "linux"))]
fn send_raw(_: &[u8], _: SocketAddrV4) -> io::Result<usize> {
    Err(ErrorKind::PermissionDenied.into())
}

/// An IPv4 packet (RFC 791) with a UDP datagram (RFC 768).
fn packet(from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) -> Vec<u8> {
    const IP_HEADER: usize = 20;
    const UDP_HEADER: usize = 8;
    let udp_length = (UDP_HEADER + data.len()) as u16;
    let length = IP_HEADER as u16 + udp_length;
    let mut packet = Vec::with_capacity(length.into());
    // Version 4, five words of header, no special service.
    packet.extend([0x45, 0]);
    packet.extend(length.to_be_bytes());
    // No identification, no fragments; 64 hops; UDP; the kernel sums up.
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    // A checksum of 0 says that there is none.
    for field in [from.port(), to.port(), udp_length, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(data);
    packet
}

fn no_amplification(case: &Case) -> Result {
    /// Long enough for a second answer to follow the first one.
    const MOMENT: Duration = Duration::from_millis(200);
    case.serve(|server| {
        for length in [0, 1, 8, 100, 1_472] {
            let sender = sender(case, server)?;
            sender.send(pattern(0, length))?;
            let (mut answers, mut bytes) = (0, 0);
            while let Some(answer) = sender.receive(MOMENT)? {
                answers += 1;
                bytes += answer.len();
                if answers > 1 || bytes > length {
                    return Failure::new("collecting all that comes for one datagram")
                        .sent(size(length as u64))
                        .expected("at most one datagram, and no more bytes")
                        .came(format!("{} and {}", many(answers), size(bytes as u64)))
                        .stop();
                }
            }
        }
        Ok(())
    })
}

fn many(datagrams: u64) -> String {
    match datagrams {
        1 => "1 datagram".to_string(),
        n => format!("{} datagrams", count(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_packet_has_the_headers_of_the_standards() {
        let from = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0x1234);
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0x5678);
        let packet = packet(from, to, b"hi");
        assert_eq!(packet.len(), 30);
        assert_eq!(packet[20..], *b"\x12\x34\x56\x78\x00\x0a\x00\x00hi");
    }
}
