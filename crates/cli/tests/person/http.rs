//! A server of ours as a child process, and requests to it.

#![allow(
    dead_code,
    reason = "not every test that shares this file uses all of it"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::binary::m3ret;

/// The kind of `form`.
pub(crate) const FORM: &str = "multipart/form-data; boundary=edge-of-test";

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Address and port.
    pub(crate) address: String,
    pub(crate) token: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        self.head.clone() + &String::from_utf8_lossy(&self.body)
    }

    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    }
}

/// Joins parts to a form.
pub(crate) fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        body.extend(format!("--edge-of-test\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n").bytes());
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--edge-of-test--\r\n");
    body
}

/// A form of one file with a name.
pub(crate) fn form_named(name: &str, bytes: &[u8]) -> Vec<u8> {
    let head = format!(
        "--edge-of-test\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
    );
    [head.as_bytes(), bytes, b"\r\n--edge-of-test--\r\n"].concat()
}

impl Server {
    /// Starts `m3ret serve WORDS` on a free port, and waits until it listens.
    pub(crate) fn start(folder: &Path, words: &[&str]) -> Self {
        let all = [&["serve", "--listen", "127.0.0.1:0"], words].concat();
        let mut command = m3ret(folder, &all);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        if line.is_empty() {
            panic!("{}", read(&mut child));
        }
        let (_, address) = line.trim().split_once("://").unwrap();
        let (address, token) = address.split_once('/').unwrap();
        let token = token.strip_prefix("#token=").unwrap_or_default();
        Self {
            address: address.to_owned(),
            token: token.to_owned(),
            child,
        }
    }

    /// Ends it with SIGTERM; returns its status and what it wrote to standard error.
    pub(crate) fn end(mut self) -> (i32, String) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        let log = read(&mut self.child);
        (self.child.wait().unwrap().code().unwrap(), log)
    }

    /// Writes the head of a request.
    pub(crate) fn head(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        length: Option<usize>,
    ) -> String {
        head_as(&self.address, method, path, headers, length)
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let head = self.head(method, path, headers, Some(body.len()));
        self.exchange(&[head.as_bytes(), body].concat())
    }

    /// Calls the server by another name.
    pub(crate) fn send_as(
        &self,
        host: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Reply {
        self.exchange(head_as(host, method, path, headers, None).as_bytes())
    }

    /// Sends a body whose length is not declared.
    pub(crate) fn send_chunked(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let headers = [headers, &[("Transfer-Encoding", "chunked")]].concat();
        let mut all = self.head("POST", path, &headers, None).into_bytes();
        for piece in body.chunks(5000) {
            all.extend(format!("{:x}\r\n", piece.len()).bytes());
            all.extend(piece);
            all.extend(b"\r\n");
        }
        all.extend(b"0\r\n\r\n");
        self.exchange(&all)
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send(
            "GET",
            path,
            &[("Authorization", &format!("Bearer {}", self.token))],
            b"",
        )
    }

    pub(crate) fn json(&self, method: &str, path: &str, body: &Value) -> Reply {
        let headers = [
            ("Authorization", &*format!("Bearer {}", self.token)),
            ("Content-Type", "application/json"),
        ];
        self.send(method, path, &headers, body.to_string().as_bytes())
    }

    pub(crate) fn form(&self, path: &str, body: &[u8]) -> Reply {
        let headers = [
            ("Authorization", &*format!("Bearer {}", self.token)),
            ("Content-Type", FORM),
        ];
        self.send("POST", path, &headers, body)
    }

    fn exchange(&self, bytes: &[u8]) -> Reply {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        // A server that hangs fails the test.
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .unwrap();
        // A server that refuses a body may close before all of it is sent.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            panic!("no answer: {read:?}, {answer:?}")
        };
        let head = String::from_utf8(answer[..end + 2].to_vec()).unwrap();
        Reply {
            status: head[9..12].parse().unwrap(),
            body: answer[end + 4..].to_vec(),
            head,
        }
    }
}

fn head_as(
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: Option<usize>,
) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = length {
        head += &format!("Content-Length: {length}\r\n");
    }
    head + "\r\n"
}

fn read(child: &mut Child) -> String {
    let mut log = String::new();
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    log
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended; as it is asked to, it erases its uploads.
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let _ = self.child.wait();
    }
}
