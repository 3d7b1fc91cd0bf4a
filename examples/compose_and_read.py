"""Compose a scene of two objects, sample it, and read it back."""

import energycomp

clevr = energycomp.load("clevr")
scene = energycomp.Composer([clevr(0.3, 0.5), clevr(0.7, 0.6)])
image = scene.sample()[0]
image.save("scene.png")
answer = energycomp.infer(image, clevr)
print(f"{answer.count} objects, fit {answer.fit:.2f}")
for place in answer.conditions:
    print(clevr.conditioner.describe(place))
