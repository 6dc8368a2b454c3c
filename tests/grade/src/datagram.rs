//! A UDP client with a deadline on everything that it does.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::bytes::{self, show, size};
use crate::check::{Deadline, During, Failure, Result};
use crate::client::STALL;

/// The most that one UDP datagram over IPv4 can carry.
pub const LARGEST: usize = 65_507;

/// A socket of its own, which knows one server: what comes from elsewhere,
/// the kernel drops.
#[derive(Debug)]
pub struct Sender {
    socket: UdpSocket,
    deadline: Deadline,
}

impl Sender {
    /// A new client for the server at `address`. Nothing that it does goes on
    /// after `deadline`.
    ///
    /// # Errors
    /// A failure when the system refuses the socket.
    pub fn to(address: SocketAddr, deadline: Deadline) -> Result<Sender> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).during("making a UDP socket")?;
        socket.connect(address).during("choosing the UDP server")?;
        Ok(Sender { socket, deadline })
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// A failure when the system refuses it: on loopback it does so when
    /// nobody receives on the server's port.
    pub fn send(&self, datagram: &[u8]) -> Result {
        match self.socket.send(datagram) {
            Ok(sent) if sent == datagram.len() => Ok(()),
            result => Failure::new("sending a datagram")
                .sent(show(datagram))
                .expected("it to be taken as a whole")
                .came(result.map_or_else(|error| error.to_string(), |sent| size(sent as u64)))
                .stop(),
        }
    }

    /// Waits for the next datagram, which is the answer to this one.
    ///
    /// # Errors
    /// A failure when another one comes, or none.
    pub fn expect(&self, datagram: &[u8]) -> Result {
        let failure = Failure::new("waiting for a datagram's answer")
            .sent(format!("a datagram of {}", describe(datagram)));
        match self.receive(STALL)? {
            None => failure
                .expected("the same datagram back")
                .came(format!("nothing for {} s", STALL.as_secs()))
                .stop(),
            Some(answer) => match bytes::first_difference(&answer, datagram) {
                None => Ok(()),
                Some(at) => failure
                    .expected(format!(
                        "{}; from byte {at} on {}",
                        size(datagram.len() as u64),
                        bytes::around(datagram, at)
                    ))
                    .came(format!(
                        "{}; from byte {at} on {}",
                        size(answer.len() as u64),
                        bytes::around(&answer, at)
                    ))
                    .stop(),
            },
        }
    }

    /// Sends a datagram and waits for it to come back.
    ///
    /// # Errors
    /// As for [`send`](Self::send) and [`expect`](Self::expect).
    pub fn exchange(&self, datagram: &[u8]) -> Result {
        self.send(datagram)?;
        self.expect(datagram)
    }

    /// Waits for any datagram; `None` when none comes within `time`.
    ///
    /// # Errors
    /// A failure when the system reports one, such as that nobody receives on
    /// the server's port.
    pub fn receive(&self, time: Duration) -> Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; LARGEST + 1];
        loop {
            // A timeout of zero would mean "for ever".
            let time = self.deadline.within(time).left();
            let time = time.max(Duration::from_millis(1));
            let set = self.socket.set_read_timeout(Some(time));
            set.during("setting a timeout")?;
            match self.socket.recv(&mut buffer) {
                Ok(received) => {
                    buffer.truncate(received);
                    return Ok(Some(buffer));
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(None),
                    ErrorKind::ConnectionRefused => {
                        return Failure::new("waiting for a datagram's answer")
                            .expected("a server on its port")
                            .came("the system's word that nobody receives there (ICMP)")
                            .stop();
                    }
                    _ => return Err(error).during("waiting for a datagram"),
                },
            }
        }
    }
}

/// A datagram in a message: what it holds, and that it may hold nothing.
fn describe(datagram: &[u8]) -> String {
    match datagram {
        [] => "0 bytes".to_string(),
        some => format!("{}: {}", size(some.len() as u64), show(some)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_differs_or_does_not_come_is_told() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = server.local_addr().expect("an address");
        let soon = Deadline::after(Duration::from_millis(200));
        let sender = Sender::to(address, soon).expect("a sender");
        sender.send(b"hello").expect("taken");
        let mut buffer = [0; 100];
        let (count, peer) = server.recv_from(&mut buffer).expect("a datagram");
        server.send_to(&buffer[..count], peer).expect("sent");
        assert!(sender.expect(b"hello").is_ok());
        server.send_to(b"hell", peer).expect("sent");
        let told = sender.expect(b"hello").map_err(|stop| format!("{stop:?}"));
        assert!(told.is_err_and(|told| told.contains("4 bytes; from byte 4 on")));
        let told = sender.expect(b"hello").map_err(|stop| format!("{stop:?}"));
        assert!(told.is_err_and(|told| told.contains("nothing for")));
        drop(server);
        let told = sender.exchange(b"?").map_err(|stop| format!("{stop:?}"));
        assert!(told.is_err_and(|told| told.contains("ICMP")));
    }
}
