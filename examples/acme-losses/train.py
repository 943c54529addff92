import nearfar
import torch

torch.manual_seed(0)
criterion = nearfar.compose("acme.log_ratio(margin=0.3, miner=acme.nearest_impostor)")
model = torch.nn.Linear(16, 8)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
inputs, labels = torch.randn(32, 16), torch.arange(8).repeat_interleave(4)
for step in range(2):
    loss = criterion(model(inputs), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"{step}: {loss.item():.3f}")
