import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer

/// Links that a power cut has lost, though the tag and the manifest are there: the next pull makes them again.
@Suite struct LostLinkTests {
    @Test(arguments: ["layer", "config", "image"], [PullPolicy.missing, .newer, .always])
    func nextPullMakesItAgain(_ kind: String, _ policy: PullPolicy) throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let source = ArraySource([ArraySource.Layer(.zeros("alpha", 1000)), ArraySource.Layer(.zeros("beta", 2000))])
        _ = try pullImage(from: source, into: store.repository)
        #expect(try store.faults().isEmpty)
        let image = try store.open("localhost/test:latest").image
        let link: ByteString =
            switch kind {
            case "layer": "streams/" + StreamName.layer(image.layerIdentifiers[1])
            case "config": "streams/" + StreamName.config(image.configDigest)
            default: "images/" + ByteString(image.allImageIDs[0].hex)
            }
        let target = try scratch.directory().readLink(at: link)
        try scratch.directory().unlink(at: link)
        #expect(try store.faults().count > 0)
        var options = PullOptions()
        options.policy = policy
        _ = try pullImage(from: source, into: store.repository, options)
        #expect(try scratch.directory().readLink(at: link) == target)
        #expect(try store.faults().isEmpty)
    }
}
