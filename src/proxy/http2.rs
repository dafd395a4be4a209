//! One HTTP/2 client connection.

use std::rc::Rc;

use super::client::Client;
use super::client_io::Transport;
use super::worker::Worker;

/// Serves requests until the connection ends.
pub(super) async fn serve(_worker: &Rc<Worker>, _client: &Rc<Client>, _transport: Transport) {}
