import ComposefsCommandSupport
import ComposefsOCI

extension Fsck {
    /// Confines a repair: to the repository, and to the sources that it may fetch from.
    func confineRepair(_ store: Store, _ path: ByteString, _ registry: RegistryOptions) throws {
        let references = from == nil ? Self.recordedSources(store) : []
        try global.confine(.repairing, repository: path) { confinement in
            if let from, (try? FileDescriptor.open(from, [.pathOnly, .directory])) != nil {
                // A layout or another repository, from which objects may get a second name here.
                confinement.readable.append(from)
                confinement.linkable.append(from + "/objects")
                return
            }
            for reference in from.map({ [$0] }) ?? references {
                guard let text = reference.utf8Text, let parsed = try? parseReference(text) else { continue }
                // What a source needs that is not there any more is told when it is asked.
                try? confinement.addSource(parsed, registry)
            }
            // A tag may be a reference to a registry.
            if from == nil { confinement.addRegistry(registry) }
        }
    }

    private static func recordedSources(_ store: Store) -> [ByteString] {
        ((try? store.images.tags()) ?? []).compactMap { store.images.recordedSource(of: $0) }
    }
}
