// Concurrency: threads, queues and waiting, on the monotonic clock.
//
// Blocking work runs on threads of this module, never on Swift's cooperative thread pool. The module knows nothing of what the work is.
//
// - `WorkerPool` runs jobs on a fixed number of threads; `BoundedQueue` connects two stages of work; `Semaphore` limits concurrent use.
// - `Guarded` is state behind a lock that threads can wait on; `Monitor` is the mutex and condition variable below it.
// - `Cancellation` ends work early; `MonotonicTime` is a point in time for deadlines.
