"""What recordings say of the camera behind them: events of a set, figures of single events, frames, static images."""
