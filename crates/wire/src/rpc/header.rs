//! What stands before arguments and answers.

use super::{Message, read_text};
use crate::msgpack::{Fields, MsgpackError, Reader, Writer};

/// What is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// For example `PinTracker`.
    pub service: String,
    /// For example `StatusAll`.
    pub method: String,
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorKind {
    /// The method said so.
    #[default]
    Method,
    /// The server did not get to the method: unknown name, or an argument that does not read.
    Server,
    /// The caller's side; never sent.
    Client,
    /// The caller may not call this.
    NotAuthorised,
}

/// What stands before an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// What was called; none is accepted by Go callers.
    pub request: Option<Request>,
    /// What went wrong; empty when nothing.
    pub error: String,
    /// Whose fault it is.
    pub kind: ErrorKind,
}

impl Request {
    /// A call of `service.method`.
    pub fn new(service: &str, method: &str) -> Request {
        Request { service: service.to_owned(), method: method.to_owned() }
    }
}

impl Response {
    /// Goes before an answer.
    pub fn ok(request: &Request) -> Response {
        Response { request: Some(request.clone()), ..Response::default() }
    }

    /// Goes before an empty answer.
    pub fn failed(request: &Request, kind: ErrorKind, error: impl Into<String>) -> Response {
        Response { request: Some(request.clone()), error: error.into(), kind }
    }

    /// Whether an answer follows that means something.
    pub fn is_ok(&self) -> bool {
        self.error.is_empty()
    }
}

impl Message for Request {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.raw_if("Name", self.service.as_bytes());
        fields.raw_if("Method", self.method.as_bytes());
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Request, MsgpackError> {
        let mut request = Request::default();
        reader.fields(|key, reader| {
            match key {
                "Name" => request.service = read_text(reader)?,
                "Method" => request.method = read_text(reader)?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(request)
    }
}

impl Message for Response {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        if let Some(request) = &self.request {
            request.write(fields.key("Service"));
        }
        fields.raw_if("Error", self.error.as_bytes());
        let kind = match self.kind {
            ErrorKind::Method => 0,
            ErrorKind::Server => 1,
            ErrorKind::Client => 2,
            ErrorKind::NotAuthorised => 3,
        };
        fields.int_if("ErrType", kind);
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Response, MsgpackError> {
        let mut response = Response::default();
        reader.fields(|key, reader| {
            match key {
                "Service" => response.request = Some(Request::read(reader)?).filter(|request| *request != Request::default()),
                "Error" => response.error = read_text(reader)?,
                "ErrType" => {
                    response.kind = match reader.int()? {
                        1 => ErrorKind::Server,
                        2 => ErrorKind::Client,
                        3 => ErrorKind::NotAuthorised,
                        _ => ErrorKind::Method,
                    }
                }
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(response)
    }
}
