import ComposefsBytes
import ComposefsFuzzSupport
import ComposefsHashing
import ComposefsImageStore
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransfer
import ComposefsTransports

/// Pulls a layout that the bytes determine: no trap, no hang, printable errors. After a refusal the store is as before and free of damage; an
/// accepted image passes a deep check. A second collection in a row removes nothing.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    var choices = Choices(start, count)
    let store = ImageStore(repository)
    var options = PullOptions(platform: Platform(os: "linux", architecture: "amd64"), name: "t", jobs: 2)
    options.storesReferrers = choices.rarely(3)
    options.keepsBlobs = choices.rarely(6)
    options.limits.layerBytes = 8 << 20
    options.limits.layerEntries = 1000
    let layout = Scratch.path + "/layout"
    Scratch.remove(layout)
    for file in RandomLayout(choices).files { Scratch.write(layout + "/" + file.path, file.bytes) }
    var isAccepted = false
    do {
        let source = try LayoutSource(directory: ImageLocation(layout.description))
        _ = try pullImage(from: source, into: repository, options)
        isAccepted = true
    } catch {
        requirePrintable(error)
    }
    do {
        let names = try store.tags().map(\.name)
        precondition(names.isEmpty || names == ["t"], "other tags")
        precondition(!isAccepted || names == ["t"], "accepted without a tag")
        let damage = try repository.check()
        precondition(damage.isOK, "damage: \(damage.problems)")
        let images = try store.check(nil, ImageCheckOptions(deep: true))
        precondition(images.problems.isEmpty, "damage: \(images.problems)")
        for name in names { try store.untag(name) }
        for reference in try repository.streamReferences() { _ = try repository.removeStreamReference(reference.name) }
        runs += 1
        if runs % 32 == 0 || damage.objectsChecked > 500 {
            // Another mount of this machine may keep the same image.
            _ = try repository.collectGarbage()
            let again = try repository.collectGarbage()
            precondition(again.objectsRemoved == 0 && again.streamsRemoved == 0 && again.imagesRemoved == 0, "a second one removes more")
        }
    } catch {
        preconditionFailure("the store: \(error)")
    }
    return 0
}

nonisolated(unsafe) private var runs = 0

private let repository: Repository = {
    let configuration = RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
    guard let made = try? Repository.initialize(Scratch.path + "/repository", configuration).repository else { fatalError("no repository") }
    return made
}()
