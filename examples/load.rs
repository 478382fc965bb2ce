//! Puts a load on a server (a first form).
fn main() {
    let url = std::env::args().nth(1).unwrap();
    let l = bimodal::load::Load::new(&url)
        .unwrap()
        .until(bimodal::load::Until::Elapsed(std::time::Duration::from_secs(2)))
        .count_by("worker");
    let o = l.run().unwrap();
    println!(
        "{:?} {} {} {:?} {:?} {:?}",
        o.elapsed,
        o.per_second(),
        o.failures(),
        o.workers,
        o.cpu,
        o.latency().value_at_quantile(0.99)
    );
    let o = l.arrival(bimodal::load::Arrival::Poisson { per_second: 1000.0 }).run().unwrap();
    println!(
        "{:?} {} {} {:?} {:?} {:?} lag {} {}",
        o.elapsed,
        o.per_second(),
        o.failures(),
        o.workers,
        o.cpu,
        o.latency().value_at_quantile(0.99),
        o.lag.value_at_quantile(0.5),
        o.lag.value_at_quantile(0.99)
    );
}
