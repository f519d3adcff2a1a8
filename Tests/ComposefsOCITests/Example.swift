import ComposefsOCI

/// Pulls an image into a repository, prints information about it, and mounts it: `example REFERENCE REPOSITORY [DIRECTORY]`.
func example(_ arguments: [String], say: (String) -> Void = { print($0) }) async throws {
    guard (2...3).contains(arguments.count) else { return say("usage: example REFERENCE REPOSITORY [DIRECTORY]") }
    let store = try Store.openOrCreate(arguments[1]).store

    // Pull. Digests, sizes and diff IDs are verified; the tag becomes visible when everything is on the disk.
    let pull = store.startPull(arguments[0])
    for await event in pull.events {
        if case .stored = event.phase, let index = event.layerIndex { say("layer \(index + 1) is verified and stored") }
    }
    let name = try await pull.result.name

    // Inspect: the image's documents, and the merged tree of its layers.
    let image = try store.image(name)
    say("\(name) is \(image.manifestDigest)")
    if let config = image.config {
        say("made for \(config.platform), runs \(config.runtime.command ?? [])")
        let tree = try store.images.tree(of: image)
        for entry in tree.sortedEntries(of: FileTree.root) { say("/\(tree.name(of: entry))") }
    }

    // Mount. In a repository with fs-verity, the kernel checks every file that is opened.
    if arguments.count == 3 {
        try store.mount(name, at: arguments[2])
        say("mounted at \(arguments[2])")
    }
}
