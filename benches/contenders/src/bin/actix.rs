//! actix-web: one accept thread hands connections to N single-threaded worker loops.

use std::io;

use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, rt, web};
use contenders::{BODY, Options, announce};

fn main() -> io::Result<()> {
    rt::System::new().block_on(serve(Options::from_args(&[])))
}

async fn serve(options: Options) -> io::Result<()> {
    // Without a signal handler SIGTERM ends the program at once, as it ends the other contenders.
    let server = HttpServer::new(|| App::new().route("/plaintext", web::get().to(plaintext)))
        .workers(options.workers)
        .disable_signals()
        .bind(options.listen)?;
    server.addrs().into_iter().for_each(announce);
    server.run().await
}

async fn plaintext() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body(BODY)
}
