//! The only async code: a client of the API server.
