//! HTTP/1.1 as a client sees it: requests as bytes, answers read one by one.

use std::time::Duration;

use crate::bytes::{CHUNK, count, show, size};
use crate::check::{Failure, Result};
use crate::client::{Client, STALL, Trouble};

/// The most that the head of an answer may take, and its headers.
const HEAD: usize = 64 << 10;
const HEADERS: usize = 100;

/// A request for `target` that keeps the connection: without a body, and in
/// one write.
///
/// ```
/// let request = grade::http::request("GET", "/");
/// assert!(request.starts_with(b"GET / HTTP/1.1\r\n"));
/// ```
#[must_use]
pub fn request(method: &str, target: &str) -> Vec<u8> {
    request_with(method, target, "")
}

/// [`request`] with further header lines, each with its line end.
#[must_use]
pub fn request_with(method: &str, target: &str, headers: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: grade.example\r\n{headers}\r\n").into_bytes()
}

/// An answer, in full.
#[derive(Debug)]
pub struct Answer {
    /// 200, 404 and so on.
    pub status: u16,
    /// The minor version: 1 for HTTP/1.1.
    pub version: u8,
    /// What follows the head; nothing for an answer to HEAD.
    pub body: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Answer {
    /// The value of a header, whatever the case of its name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(it, _)| it.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the server says that it closes the connection after this.
    #[must_use]
    pub fn closes(&self) -> bool {
        let says = |word: &str| {
            let mut options = self.header("connection").unwrap_or_default().split(',');
            options.any(|option| option.trim().eq_ignore_ascii_case(word))
        };
        says("close") || (self.version == 0 && !says("keep-alive"))
    }

    /// The length that its head promises for the body.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// The answer in a few words, for a message about it.
    #[must_use]
    pub fn summary(&self) -> String {
        let kind = self.header("content-type").unwrap_or("no Content-Type");
        let body = show(&self.body);
        format!("status {}, {kind}, the body {body}", self.status)
    }

    /// Makes sure that it has this status.
    ///
    /// # Errors
    /// A failure that names what was `asked`, when it has another one.
    pub fn require(&self, asked: &[u8], statuses: &[u16]) -> Result {
        if statuses.contains(&self.status) {
            return Ok(());
        }
        let wanted: Vec<_> = statuses.iter().map(u16::to_string).collect();
        Failure::new("reading the answer to a request")
            .sent(show_request(asked))
            .expected(format!("status {}", wanted.join(" or ")))
            .came(self.summary())
            .stop()
    }
}

/// A request as it is shown: the first line, which may be all there is.
#[must_use]
pub fn show_request(request: &[u8]) -> String {
    let line = request.split_inclusive(|&byte| byte == b'\n').next();
    match line.unwrap_or_default() {
        line if line.len() < request.len() && line.len() <= 100 => {
            let (line, bytes) = (line.escape_ascii(), count(request.len() as u64));
            format!("\"{line}\"... ({bytes} bytes)")
        }
        line if line.len() <= 100 => format!("\"{}\"", line.escape_ascii()),
        _ => show(request),
    }
}

/// Reads the answers on a connection, which may come many at a time.
#[derive(Debug)]
pub struct Answers<'a> {
    client: &'a mut Client,
    /// What came, and how much of it was taken; the rest came behind the last
    /// answer.
    came: Vec<u8>,
    taken: usize,
    buffer: Vec<u8>,
}

impl<'a> Answers<'a> {
    /// The answers that `client` gets from now on.
    #[must_use]
    pub fn of(client: &'a mut Client) -> Self {
        Answers {
            client,
            came: Vec::new(),
            taken: 0,
            buffer: vec![0; CHUNK],
        }
    }

    /// The client, to send more.
    pub fn client(&mut self) -> &mut Client {
        self.client
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// A failure when it cannot be sent, or no whole answer comes.
    pub fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.client.send(request)?;
        self.next(request)
    }

    /// Reads the next answer, which is the one to `asked`.
    ///
    /// # Errors
    /// A failure when something else comes, or less than a whole answer.
    pub fn next(&mut self, asked: &[u8]) -> Result<Answer> {
        let mut answer = self.head(asked)?;
        if !asked.starts_with(b"HEAD ") {
            answer.body = self.body(asked, answer.length().unwrap_or_default())?;
        }
        Ok(answer)
    }

    /// Reads the head of the next answer only. Its body must be read next.
    ///
    /// # Errors
    /// A failure when something else comes, or no Content-Length is in it.
    pub fn head(&mut self, asked: &[u8]) -> Result<Answer> {
        let failure = |came: String| {
            Failure::new("reading the head of an answer")
                .sent(show_request(asked))
                .expected("a status line and headers, with a Content-Length")
                .came(came)
        };
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            match response.parse(self.unread()) {
                Ok(httparse::Status::Complete(length)) => {
                    let answer = Answer {
                        status: response.code.unwrap_or_default(),
                        version: response.version.unwrap_or_default(),
                        body: Vec::new(),
                        headers: response.headers.iter().map(owned).collect(),
                    };
                    if answer.length().is_none() {
                        let head = String::from_utf8_lossy(&self.unread()[..length]);
                        return failure(head.escape_debug().to_string()).stop();
                    }
                    self.taken += length;
                    return Ok(answer);
                }
                Ok(httparse::Status::Partial) if self.unread().len() < HEAD => {}
                Ok(httparse::Status::Partial) => {
                    return failure(format!("{}, and no end of it", show(self.unread()))).stop();
                }
                Err(error) => return failure(format!("{}: {error}", show(self.unread()))).stop(),
            }
            if let Err(trouble) = self.more() {
                let came = match self.unread() {
                    [] => trouble.to_string(),
                    some => format!("{}, then {trouble}", show(some)),
                };
                return failure(came).stop();
            }
        }
    }

    /// Reads the next `length` bytes, which are a body or a part of it.
    ///
    /// # Errors
    /// A failure when fewer come.
    pub fn body(&mut self, asked: &[u8], length: u64) -> Result<Vec<u8>> {
        while (self.unread().len() as u64) < length {
            if let Err(trouble) = self.more() {
                let got = size(self.unread().len() as u64);
                return Failure::new("reading the body of an answer")
                    .sent(show_request(asked))
                    .expected(format!("{}, as the head promised", size(length)))
                    .came(format!("{got}, then {trouble}"))
                    .stop();
            }
        }
        let body = self.unread()[..length as usize].to_vec();
        self.taken += body.len();
        Ok(body)
    }

    /// Makes sure that nothing came behind the last answer, so far.
    ///
    /// # Errors
    /// A failure with what came.
    pub fn no_more(&self) -> Result {
        if self.unread().is_empty() {
            return Ok(());
        }
        Failure::new("reading on after the answer")
            .expected("nothing: every request has its answer")
            .came(show(self.unread()))
            .stop()
    }

    /// Reads the end of the stream, nothing before it, and no reset after it.
    ///
    /// # Errors
    /// A failure when bytes, a reset or nothing comes.
    pub fn end(&mut self) -> Result {
        self.no_more()?;
        self.client.expect_orderly_end()
    }

    /// Waits for `time`, in which nothing must come: `part` is no request yet.
    ///
    /// # Errors
    /// A failure when the server answers, or closes.
    pub fn silence(&mut self, part: &[u8], time: Duration) -> Result {
        let came = match self.more_within(time) {
            Err(Trouble::Silence(_)) => return Ok(()),
            Err(trouble) => trouble.to_string(),
            Ok(()) => show(self.unread()),
        };
        Failure::new("waiting with a request that is not whole yet")
            .sent(show_request(part))
            .expected("no answer before its last byte")
            .came(came)
            .stop()
    }

    /// Half-closes, and makes sure that the end is all that comes of it: no
    /// request was answered twice.
    ///
    /// # Errors
    /// A failure when bytes, a reset or nothing comes.
    pub fn leave(&mut self) -> Result {
        self.client.finish_sending()?;
        self.end()
    }

    fn unread(&self) -> &[u8] {
        &self.came[self.taken..]
    }

    fn more(&mut self) -> std::result::Result<(), Trouble> {
        self.more_within(STALL)
    }

    fn more_within(&mut self, time: Duration) -> std::result::Result<(), Trouble> {
        self.came.drain(..self.taken);
        self.taken = 0;
        let read = self.client.read(&mut self.buffer, time)?;
        self.came.extend_from_slice(&self.buffer[..read]);
        Ok(())
    }
}

fn owned(header: &httparse::Header) -> (String, String) {
    let value = String::from_utf8_lossy(header.value).trim().to_string();
    (header.name.to_string(), value)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;
    use crate::check::{Deadline, Stop};

    /// A client of a server that says this to whatever comes, and closes.
    fn told(words: &'static [u8]) -> Client {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 1000];
            let _ = stream.read(&mut request).expect("a request");
            stream.write_all(words).expect("an answer");
        });
        let deadline = Deadline::after(Duration::from_secs(10));
        Client::connect(address, deadline).expect("a connection")
    }

    fn failure<T: std::fmt::Debug>(result: Result<T>) -> Failure {
        match result {
            Err(Stop::Failed(failure)) => *failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers_that_come_together_are_read_one_by_one() {
        let mut client = told(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi\
              HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nConnection: x, Close\r\n\r\n",
        );
        let mut answers = Answers::of(&mut client);
        let first = answers.ask(&request("GET", "/")).expect("an answer");
        assert_eq!((first.status, first.body.as_slice()), (200, &b"hi"[..]));
        assert!(!first.closes());
        let second = answers.next(b"GET /").expect("another one");
        assert_eq!((second.status, second.length()), (404, Some(0)));
        assert!(second.closes());
        assert!(answers.end().is_ok());
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        let mut client = told(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        let mut answers = Answers::of(&mut client);
        let answer = answers.ask(&request("HEAD", "/")).expect("an answer");
        assert_eq!((answer.length(), answer.body.len()), (Some(2), 0));
        // What follows is too much, and seen at the latest when all must end.
        let came = failure(answers.end()).came.expect("what came");
        assert!(came.contains("hi"), "{came}");
    }

    #[test]
    fn what_is_no_answer_is_shown() {
        let mut client = told(b"hello\r\n\r\n");
        let came = failure(Answers::of(&mut client).ask(&request("GET", "/"))).came;
        assert!(came.is_some_and(|came| came.starts_with("\"hello\\r\\n\\r\\n\"")));
        let mut client = told(b"HTTP/1.1 200 OK\r\n\r\n");
        let came = failure(Answers::of(&mut client).ask(&request("GET", "/"))).came;
        assert!(came.is_some_and(|came| came.starts_with("HTTP/1.1 200 OK")));
        let mut client = told(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi");
        let came = failure(Answers::of(&mut client).ask(&request("GET", "/"))).came;
        assert_eq!(came.as_deref(), Some("2 bytes, then the end of the stream"));
    }
}
