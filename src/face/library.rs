//! The library's own face: what another program needs to begin.

use crate::dataflow::budget;
use crate::error::{Error, Result};
use crate::settings::Input;

impl Input {
    /// The input of the `pgstow` program without flags: the environment of this process, its working folder, its
    /// processors and its memory (bytes). Change or add what your program knows better, such as `DATABASE_URL` in
    /// [`env`](Input::env).
    ///
    /// # Errors
    /// `CONFIG` if the working folder is gone.
    pub fn of_this_process() -> Result<Input> {
        let env =
            std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()));
        let env = env.collect();
        Ok(Input {
            memory: budget::of_this_task(&env),
            env,
            working_dir: std::env::current_dir()
                .map_err(|error| Error::config("the working directory is gone or closed to us").source(error))?,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            ..Input::default()
        })
    }
}
