import ComposefsBytes
import ComposefsHashing
package import ComposefsRepository

extension SnapshotStore {
    /// The space that only snapshots keep, neither images nor other references; `count` is the number of names. Nothing is read if there is no snapshot.
    ///
    /// - Throws: `RepositoryError`.
    package func space() throws -> SpaceUse {
        var snapshots = AccountRoot()
        var others = AccountRoot()
        var names = 0
        for reference in try repository.streamReferences() {
            let isName = reference.name.hasPrefix(SnapshotNames.references + "/")
            if isName { names += 1 }
            if isName || reference.name.hasPrefix(SnapshotNames.images + "/") {
                snapshots.streams.append(reference.entry)
            } else {
                others.streams.append(reference.entry)
            }
        }
        guard names > 0 else { return SpaceUse() }
        others.images = try repository.imageReferences().compactMap { ObjectID(hex: $0.entry.bytes) }
        guard var space = try repository.accounts([snapshots], others: others).roots.first?.alone else { return SpaceUse() }
        space.count = names
        return space
    }
}
