// Transfer: the pull, the push and the copy of images between sources, destinations and the store.
//
// The module verifies everything that it stores and sends; nothing becomes visible before it is verified and durable. It knows no registry
// and no file format of a transport: `ImageSource` and `ImageDestination` of Transports hide them. Registry does not depend on this module,
// nor the other way round.
//
// - `pullImage` and `pullAllPlatforms` store an image. `LayerPipeline` shows the stages from a blob to a split stream: download, verify,
//   decompress, split, store. `LayerQueue` assigns layers to threads and avoids that two pulls fetch the same blob.
// - `pushImage` sends an image; `LayerPacking` re-assembles and compresses a layer.
// - `copyImage` copies an image between repositories; `ImageStore.importLayer` and `storeImage` store parts of one.
// - `PullOptions`, `PullEvent`, `PullResult` and `PullError`, and their counterparts for push and copy, are the interface to callers.
