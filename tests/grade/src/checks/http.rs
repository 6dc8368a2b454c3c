//! HTTP: a request is whole before it is answered, and the answer is whole
//! before the connection ends.

use std::time::Duration;

use crate::bytes::pattern;
use crate::catalog::Traits;
use crate::check::{Case, Check, Failure, ORDINARY, Result};
use crate::checks::files::Site;
use crate::client::Client;
use crate::http::{Answer, Answers, request, request_with, show_request};
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "a request gets the page, with its type and length",
        cause: "the head has no Content-Type, or a Content-Length that is not the body's",
        section: "ch03-reactor/http.md#http",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: page,
    },
    Check {
        name: "nothing is answered before the request is whole",
        cause: "the answer is sent when a client has connected or the first bytes have come, \
                not when the head has its empty line",
        section: "ch03-reactor/http.md#parse-first",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: answers_late,
    },
    Check {
        name: "a request split at any byte is answered once",
        cause: "a read is taken for a request: the rest is another read, and another answer",
        section: "ch03-reactor/http.md#parse-first",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: split_anywhere,
    },
    Check {
        name: "a request that comes byte by byte is answered once",
        cause: "a read is taken for a request, or the end of the head is looked for in the \
                last read only",
        section: "ch03-reactor/http.md#parse-first",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: byte_by_byte,
    },
    Check {
        name: "ten requests in one write are answered in order",
        cause: "what was read behind the first request is dropped, or waits until more comes",
        section: "ch03-reactor/http.md#pipelining",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: pipelined,
    },
    Check {
        name: "a connection serves 100 requests",
        cause: "the connection is closed after an answer, though HTTP/1.1 keeps it",
        section: "ch03-reactor/http.md#keep-alive",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: hundred_requests,
    },
    Check {
        name: "Connection: close is answered, then the connection ends in order",
        cause: "the header is not read, or the socket is closed while bytes of the client \
                are unread, which sends a reset",
        section: "ch03-reactor/http.md#lingering-close",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: |case| closes_after(case, &request_with("GET", "/", "Connection: close\r\n")),
    },
    Check {
        name: "HTTP/1.0 is answered, then the connection ends in order",
        cause: "a client of HTTP/1.0 waits for the end of the stream, which never comes, or \
                is refused because it sends no Host",
        section: "ch03-reactor/http.md#keep-alive",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: |case| closes_after(case, b"GET / HTTP/1.0\r\n\r\n"),
    },
    Check {
        name: "a half-close after a request is answered in full, then the end",
        cause: "the end of the stream is taken as \"drop everything\" while an answer waits",
        section: "ch01-echo/endings.md#half-close",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: half_close,
    },
    Check {
        name: "HEAD has the headers of GET and no body",
        cause: "the body is sent too, and the client takes it for the next answer",
        section: "ch03-reactor/http.md#methods",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: head,
    },
    Check {
        name: "POST, PUT and DELETE are refused with 405 and Allow",
        cause: "the method is not looked at",
        section: "ch03-reactor/http.md#methods",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: methods,
    },
    Check {
        name: "the body of a refused request harms nothing",
        cause: "the body is taken for the next request, or the socket is closed while it is \
                unread, which sends a reset",
        section: "ch03-reactor/http.md#lingering-close",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: refused_body,
    },
    Check {
        name: "what is not HTTP gets 400, then the connection ends in order",
        cause: "garbage is answered like a request, or the socket is closed while bytes are \
                unread or still come, which sends a reset",
        section: "ch03-reactor/http.md#garbage",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: garbage,
    },
    Check {
        name: "a whole URL is a target, too",
        cause: "the target is taken for a path without looking: proxies send http://...",
        section: "ch03-reactor/http.md#targets",
        descriptors: ORDINARY,
        applies: Traits::is_http,
        run: whole_url,
    },
];

/// How long a part of a request waits for the rest: time for a wrong answer.
const MOMENT: Duration = Duration::from_millis(5);

/// Asks on a connection of its own, which then ends in order, and with it the
/// proof that nothing else was said.
pub(super) fn ask_alone(case: &Case, server: &Server, request: &[u8]) -> Result<Answer> {
    let mut client = case.client(server)?;
    let mut answers = Answers::of(&mut client);
    let answer = answers.ask(request)?;
    leave(&mut answers, &answer)?;
    Ok(answer)
}

/// The connection ends after `last`: by the server if it says so, or because
/// the client leaves.
fn leave(answers: &mut Answers, last: &Answer) -> Result {
    if last.closes() {
        answers.end()
    } else {
        answers.leave()
    }
}

fn page(case: &Case) -> Result {
    case.serve(|server| {
        let page = request("GET", "/");
        let mut client = case.client(server)?;
        let answer = Answers::of(&mut client).ask(&page)?;
        answer.require(&page, &[200])?;
        let kind = answer.header("content-type").unwrap_or_default();
        if kind.starts_with("text/") && !answer.body.is_empty() {
            return Ok(());
        }
        Failure::new("reading the page")
            .sent(show_request(&page))
            .expected("text of some type, such as text/html, and a body")
            .came(answer.summary())
            .stop()
    })
}

fn answers_late(case: &Case) -> Result {
    case.serve(|server| {
        let page = request("GET", "/");
        let (head, last) = page.split_at(page.len() - 1);
        let mut client = case.client(server)?;
        let mut answers = Answers::of(&mut client);
        answers.silence(b"", 20 * MOMENT)?;
        answers.client().send(head)?;
        answers.silence(head, 60 * MOMENT)?;
        let answer = answers.ask(last)?;
        answer.require(&page, &[200])?;
        leave(&mut answers, &answer)
    })
}

fn split_anywhere(case: &Case) -> Result {
    let page = request_with("GET", "/", "Accept: */*\r\n");
    case.serve(|server| {
        for at in 1..page.len() {
            let mut client = case.client(server)?;
            in_parts(&mut client, &page, &[at])?;
        }
        Ok(())
    })
}

fn byte_by_byte(case: &Case) -> Result {
    let page = request("GET", "/");
    let everywhere: Vec<usize> = (1..page.len()).collect();
    case.serve(|server| {
        let mut client = case.client(server)?;
        in_parts(&mut client, &page, &everywhere)
    })
}

/// Sends a request in parts that are cut at these places, and reads the one
/// answer to it.
fn in_parts(client: &mut Client, request: &[u8], cuts: &[usize]) -> Result {
    let mut answers = Answers::of(client);
    let mut sent = 0;
    for &cut in cuts {
        answers.client().send(&request[sent..cut])?;
        answers.silence(&request[..cut], MOMENT)?;
        sent = cut;
    }
    answers.client().send(&request[sent..])?;
    let answer = answers.next(request)?;
    answer.require(request, &[200])?;
    leave(&mut answers, &answer)
}

/// Ten files of a server that has files; from another one ten times its page.
fn pipelined(case: &Case) -> Result {
    let ten = |server: &Server, targets: &[String], bodies: Option<&[String]>| {
        let requests: Vec<_> = targets.iter().map(|it| request("GET", it)).collect();
        let all = requests.concat();
        // In one write, and in pieces that have parts of two requests.
        for piece in [all.len(), 17] {
            let mut client = case.client(server)?;
            let mut answers = Answers::of(&mut client);
            for part in all.chunks(piece) {
                answers.client().send(part)?;
            }
            for (number, request) in requests.iter().enumerate() {
                let answer = answers.next(request)?;
                answer.require(request, &[200])?;
                case.stays(&answer)?;
                let wanted = bodies.map(|bodies| bodies[number].as_bytes());
                if wanted.is_some_and(|wanted| wanted != answer.body) {
                    return Failure::new("reading the answers to ten requests")
                        .sent(format!(
                            "{} as number {}",
                            show_request(request),
                            number + 1
                        ))
                        .expected(format!("the text {:?}", bodies.map(|it| &it[number])))
                        .came(answer.summary())
                        .stop();
                }
            }
            answers.leave()?;
        }
        Ok(())
    };
    if case.traits().serves_files() && case.conventions().is_ok() {
        let numbers = 0..10;
        let bodies: Vec<_> = numbers.map(|it| format!("{}\n", it * 1111)).collect();
        let mut site = Site::new()?;
        let mut targets = Vec::new();
        for (number, body) in bodies.iter().enumerate() {
            site.add(&format!("{number}.txt"), body.as_bytes())?;
            targets.push(format!("/{number}.txt"));
        }
        site.serve(case, &[], |server| ten(server, &targets, Some(&bodies)))
    } else {
        let targets = vec!["/".to_string(); 10];
        case.serve(|server| ten(server, &targets, None))
    }
}

fn hundred_requests(case: &Case) -> Result {
    case.serve(|server| {
        let mut client = case.client(server)?;
        let mut answers = Answers::of(&mut client);
        let page = request("GET", "/");
        for _ in 0..100 {
            let answer = answers.ask(&page)?;
            answer.require(&page, &[200])?;
            answers.no_more()?;
            case.stays(&answer)?;
        }
        answers.leave()
    })
}

fn closes_after(case: &Case, last: &[u8]) -> Result {
    // Behind the last request there may be others, which get no answer.
    let more = request("GET", "/").repeat(4_000);
    case.serve(|server| {
        for more in [b"", &more[..]] {
            let mut client = case.client(server)?;
            let mut answers = Answers::of(&mut client);
            answers.client().send(&[last, more].concat())?;
            answers.next(last)?.require(last, &[200])?;
            answers.end()?;
        }
        Ok(())
    })
}

fn half_close(case: &Case) -> Result {
    /// Their answers are more than a narrow connection holds.
    const REQUESTS: usize = 2_000;
    let page = request("GET", "/");
    case.serve(|server| {
        let mut client = case.client(server)?;
        let mut answers = Answers::of(&mut client);
        answers.client().send(&page)?;
        answers.client().finish_sending()?;
        let answer = answers.next(&page)?;
        answer.require(&page, &[200])?;
        answers.end()?;
        if answer.closes() {
            return Ok(());
        }
        let mut client = case.narrow_client(server)?;
        let mut answers = Answers::of(&mut client);
        answers.client().send(&page.repeat(REQUESTS))?;
        answers.client().finish_sending()?;
        for _ in 0..REQUESTS {
            answers.next(&page)?.require(&page, &[200])?;
        }
        answers.end()
    })
}

fn head(case: &Case) -> Result {
    case.serve(|server| {
        let requests = ["GET", "HEAD"].map(|method| request(method, "/"));
        let get = ask_alone(case, server, &requests[0])?;
        let head = ask_alone(case, server, &requests[1])?;
        head.require(&requests[1], &[get.status])?;
        for name in ["Content-Length", "Content-Type"] {
            if head.header(name) != get.header(name) {
                return Failure::new(format!("comparing {name} of HEAD and GET"))
                    .expected(get.header(name).unwrap_or("none"))
                    .came(head.header(name).unwrap_or("none"))
                    .stop();
            }
        }
        Ok(())
    })
}

fn methods(case: &Case) -> Result {
    case.serve(|server| {
        for method in ["POST", "PUT", "DELETE"] {
            let request = request_with(method, "/", "Content-Length: 0\r\n");
            let answer = ask_alone(case, server, &request)?;
            refuses(&answer, &request)?;
        }
        Ok(())
    })
}

fn refuses(answer: &Answer, request: &[u8]) -> Result {
    answer.require(request, &[405])?;
    let allow = answer.header("allow").unwrap_or_default();
    let mut allowed = allow.split(',').map(str::trim);
    if allowed.clone().any(|it| it == "GET") && allowed.any(|it| it == "HEAD") {
        return Ok(());
    }
    Failure::new("reading why a method is refused")
        .sent(show_request(request))
        .expected("Allow: GET, HEAD")
        .came(format!("Allow: {allow}"))
        .stop()
}

fn refused_body(case: &Case) -> Result {
    // A body that looks like requests, which must not be answered.
    let smuggled = request("GET", "/").repeat(2_000);
    let length = smuggled.len();
    let whole = format!("Content-Length: {length}\r\n");
    let chunk = [
        format!("{length:x}\r\n").as_bytes(),
        &smuggled,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let bodies = [
        (whole.as_str(), &smuggled),
        ("Transfer-Encoding: chunked\r\n", &chunk),
    ];
    case.serve(|server| {
        for (method, (header, body)) in ["POST", "DELETE"]
            .into_iter()
            .flat_map(|it| bodies.map(|body| (it, body)))
        {
            let head = request_with(method, "/", header);
            let mut client = case.client(server)?;
            let mut answers = Answers::of(&mut client);
            answers.client().send(&[&head[..], body].concat())?;
            let answer = answers.next(&head)?;
            refuses(&answer, &head)?;
            leave(&mut answers, &answer)?;
        }
        Ok(())
    })
}

fn garbage(case: &Case) -> Result {
    let kinds: [&[u8]; 11] = [
        b"hello, is anybody there?\r\n\r\n",
        // What a browser says first to https://
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : grade.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: grade.example\r\nno colon here\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: grade.example\r\nX: \0\r\n\r\n",
        // No Host again; and no answer to HEAD has a body.
        b"HEAD / HTTP/1.1\r\n\r\n",
        // Nobody knows where such a request ends (RFC 9112, 6.3).
        b"GET / HTTP/1.1\r\nHost: grade.example\r\nContent-Length: many\r\n\r\n",
    ];
    let page = request("GET", "/");
    case.serve(|server| {
        for kind in kinds {
            let mut client = case.client(server)?;
            ends_with(&mut client, kind, &[400])?;
        }
        // Behind a request, too.
        let mut client = case.client(server)?;
        let mut answers = Answers::of(&mut client);
        answers.client().send(&[&page, kinds[0]].concat())?;
        let answer = answers.next(&page)?;
        answer.require(&page, &[200])?;
        if !answer.closes() {
            answers.next(kinds[0])?.require(kinds[0], &[400])?;
        }
        answers.end()
    })
}

/// Sends what cannot be answered otherwise than with one of `statuses`, and
/// goes on sending while the server closes the connection, which it must do
/// in order: a reset could destroy the answer.
pub(super) fn ends_with(client: &mut Client, request: &[u8], statuses: &[u16]) -> Result {
    client.send(&[request, pattern(0, 64 << 10)].concat())?;
    let mut answers = Answers::of(client);
    answers.next(request)?.require(request, statuses)?;
    answers.end()?;
    for _ in 0..10 {
        answers.client().send(b"and another thing...\r\n")?;
        std::thread::sleep(MOMENT);
    }
    answers.end()
}

fn whole_url(case: &Case) -> Result {
    case.serve(|server| {
        for target in ["http://grade.example/", "http://grade.example"] {
            let request = request("GET", target);
            let mut client = case.client(server)?;
            let answer = Answers::of(&mut client).ask(&request)?;
            answer.require(&request, &[200])?;
        }
        Ok(())
    })
}
