//! placeholder until the faces branch lands
pub trait Observer: Send + Sync {
    fn phase(&self, _name: &str) {}
    fn estimate(&self, _bytes: u64) {}
    fn bytes_read(&self, _delta: u64) {}
    fn table(&self, _name: &str) {}
    fn bytes_stored(&self, _delta: u64) {}
}
pub struct Silent;
impl Observer for Silent {}
